package localcomfy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend/comfyhttp"
)

func TestRemoveFiles(t *testing.T) {
	data := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside.png")
	b := &Backend{data: data}
	write := func(parts ...string) string {
		p := filepath.Join(append([]string{data}, parts...)...)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o700))
		require.NoError(t, os.WriteFile(p, []byte("x"), 0o600))
		return p
	}
	require.NoError(t, os.WriteFile(outside, []byte("x"), 0o600))
	keep := []string{outside, write("state.json"), write("user", "settings"), write("output", "a", "neighbour.png"), write("models", "m")}
	gone := []string{write("output", "top.png"), write("output", "a", "b", "c", "deep.png"), write("input", "comfyd", "job", "in.png"), write("temp", "t.png")}
	require.NoError(t, os.Symlink(filepath.Dir(outside), filepath.Join(data, "output", "link")))
	require.NoError(t, os.Symlink(outside, filepath.Join(data, "output", "alias.png")))

	require.NoError(t, b.removeFiles(t.Context(), "", []comfyhttp.RemotePath{
		{Folder: "output", Filename: "top.png"}, {Folder: "output", Subfolder: "a/b/c", Filename: "deep.png"},
		{Folder: "input", Subfolder: "comfyd/job", Filename: "in.png"}, {Folder: "temp", Filename: "t.png"},
		{Folder: "output", Filename: "never-there.png"}, {Folder: "output", Subfolder: "nor/this", Filename: "x"},
		{Folder: "output", Filename: "alias.png"},
	}))
	for _, bad := range []comfyhttp.RemotePath{
		{Folder: "user", Filename: "settings"}, {Folder: "models", Filename: "m"}, {Folder: "", Filename: "state.json"}, {Folder: "..", Filename: "x"},
		{Folder: "output", Filename: "../state.json"}, {Folder: "output", Subfolder: "..", Filename: "state.json"},
		{Folder: "output", Subfolder: "a/../..", Filename: "state.json"}, {Folder: "output", Filename: outside},
		{Folder: "output", Subfolder: "link", Filename: "outside.png"}, {Folder: "output", Filename: "a"},
	} {
		require.Error(t, b.removeFiles(t.Context(), "", []comfyhttp.RemotePath{bad}), "%+v", bad)
	}
	for _, p := range keep {
		require.FileExists(t, p)
	}
	for _, p := range gone {
		require.NoFileExists(t, p)
	}
	require.NoFileExists(t, filepath.Join(data, "output", "alias.png"))
	require.NoDirExists(t, filepath.Join(data, "output", "a", "b"), "empty folders stay")
	require.NoDirExists(t, filepath.Join(data, "input", "comfyd"))
	require.DirExists(t, filepath.Join(data, "input"))
	require.DirExists(t, filepath.Join(data, "temp"))
}

func TestOutputIsBounded(t *testing.T) {
	b := &Backend{data: t.TempDir(), t: timing{logSize: 1000}}
	o, err := b.openOutput()
	require.NoError(t, err)
	defer o.close()
	require.NoError(t, o.mark([]string{"python"}))
	writer, err := os.OpenFile(o.path, os.O_WRONLY|os.O_APPEND, 0) // ComfyUI's
	require.NoError(t, err)
	defer writer.Close()
	for range 5 {
		_, err = writer.WriteString(strings.Repeat("0123456789\n", 100))
		require.NoError(t, err)
		require.NoError(t, o.rotate())
	}
	_, err = writer.WriteString("the end\nthe end\n\n")
	require.NoError(t, err)
	now, err := os.ReadFile(o.path)
	require.NoError(t, err)
	require.Equal(t, "the end\nthe end\n\n", string(now))
	old, err := os.ReadFile(o.path + ".1")
	require.NoError(t, err)
	require.Len(t, old, 1100)
	require.Equal(t, []string{"the end"}, o.tail())
	require.NoError(t, o.mark([]string{"python"}))
	require.Empty(t, o.tail(), "lines of an earlier run")
}

func TestDeviceArgs(t *testing.T) {
	b := &Backend{o: Options{Dir: "/c", Args: []string{"--lowvram"}}, data: "/d", port: 1}
	require.False(t, b.needsCPU(t.Context(), "python3"))
	require.NotContains(t, b.command("python", false), "--cpu")

	t.Setenv("PATH", t.TempDir()) // neither nvidia-smi nor rocminfo
	b.o.Args = nil
	require.Equal(t, noGPU, findGPU(t.Context()))
	require.True(t, b.needsCPU(t.Context(), "python3"))
	require.Contains(t, b.command("python", true), "--cpu")
}

// TestPreviewArgs: a person's own choice of previews stands.
func TestPreviewArgs(t *testing.T) {
	b := &Backend{o: Options{Dir: "/c"}, data: "/d"}
	require.NotContains(t, b.command("python", false), previewArg)
	b.o.Previews = true
	require.Contains(t, strings.Join(b.command("python", false), " "), previewArg+" auto")
	for _, args := range [][]string{{previewArg, "taesd"}, {previewArg + "=none"}} {
		b.o.Args = args
		require.Equal(t, 1, strings.Count(strings.Join(b.command("python", false), " "), previewArg))
		require.False(t, b.asksPreviews())
	}
}

func TestGPUWithATorchForTheCPU(t *testing.T) {
	tools := t.TempDir()
	script := func(name, body string) {
		require.NoError(t, os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/sh\n"+body), 0o700))
	}
	t.Setenv("PATH", tools)
	script("nvidia-smi", `echo "GPU 0: NVIDIA L40S (UUID: GPU-0)"`)
	require.Equal(t, nvidia, findGPU(t.Context()))
	b := &Backend{}
	script("python3", "echo cpu")
	require.True(t, b.needsCPU(t.Context(), filepath.Join(tools, "python3")))
	script("python3", "echo gpu")
	require.False(t, b.needsCPU(t.Context(), filepath.Join(tools, "python3")))
	script("python3", "exit 1") // ComfyUI itself will say what is missing
	require.False(t, b.needsCPU(t.Context(), filepath.Join(tools, "python3")))
	script("nvidia-smi", `echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver"; exit 9`)
	require.Equal(t, noGPU, findGPU(t.Context()))
}
