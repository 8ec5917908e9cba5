package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/comfyd/comfyd/client"
)

// isMedia says whether a name is that of a file that ComfyUI's loaders take as an input: pictures, video, audio, latents
// and 3D models, but never checkpoints.
func isMedia(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".exr", ".hdr", ".svg",
		".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v",
		".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac",
		".latent", ".glb", ".gltf", ".obj", ".fbx", ".stl", ".ply":
		return true
	}
	return false
}

// names are the input files that the graph's nodes name, sorted. What a save node calls its own files is not among
// them, nor what the graph takes from ComfyUI's other folders ("x.png [output]").
func (g graph) names() []string {
	found := map[string]bool{}
	for _, n := range g {
		for input, raw := range n.Inputs {
			var value string
			if input == "filename_prefix" || json.Unmarshal(raw, &value) != nil {
				continue
			}
			// The annotation of ComfyUI's folder_paths.annotated_filepath.
			value = strings.TrimSuffix(value, " [input]")
			if isMedia(value) && fs.ValidPath(value) && !strings.ContainsAny(value, `\:`) {
				found[value] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// upload sends the files that the graph names and that lie in one of dirs, the first that has it, and those that images
// (NAME=PATH) name. Nothing else is opened: a name that leads out of its folder, by dots or by a symbolic link, is
// none of ours.
func upload(ctx context.Context, c *client.Client, s *screen, g graph, dirs, images []string) ([]client.InputFile, error) {
	var inputs []client.InputFile
	given := map[string]bool{}
	for _, image := range images {
		name, from, ok := strings.Cut(image, "=")
		if !ok || name == "" || from == "" {
			return nil, usagef("--image %q: write NAME=PATH, with the name that the workflow uses", image)
		}
		given[name] = true
		f, err := os.Open(from)
		if err != nil {
			return nil, usagef("--image %q: %w", image, err)
		}
		in, err := send(ctx, c, s, name, from, f)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	for _, name := range g.names() {
		if given[name] {
			continue
		}
		for _, dir := range dirs {
			f, err := openIn(dir, name)
			if err != nil {
				return nil, err
			}
			if f == nil {
				continue
			}
			in, err := send(ctx, c, s, name, filepath.Join(dir, name), f)
			if err != nil {
				return nil, err
			}
			inputs = append(inputs, in)
			break
		}
	}
	return inputs, nil
}

// openIn opens a regular file below dir; nil where there is none.
func openIn(dir, name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // no such file, or one outside: the server may know the name
	}
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		return nil, usagef("the workflow names a file that cannot be read: %w", err)
	}
	return f, err
}

// send uploads f and closes it.
func send(ctx context.Context, c *client.Client, s *screen, name, from string, f *os.File) (client.InputFile, error) {
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return client.InputFile{}, err
	}
	if !info.Mode().IsRegular() {
		return client.InputFile{}, usagef("%s is not a file", from)
	}
	s.say("uploading %s (%s) as %q", from, humanize.IBytes(uint64(info.Size())), name)
	return c.Upload(ctx, name, f)
}
