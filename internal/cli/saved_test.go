package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

const savedFile = `{"nodes":[{"id":1,"type":"LoadImage","title":"The photo","widgets_values":["photo.png","image"]},
	{"id":2,"type":"SaveImage","widgets_values":["photo.png"]},{"id":"3","type":"sub"},{"id":4,"type":"VHS","widgets_values":{"video":"clip.mp4"}},7],
	"definitions":{"subgraphs":[{"id":"sub","nodes":[{"id":8,"type":"LoadImage","widgets_values":["inner.png"]},{"id":9,"type":"sub"}]}]},"links":[]}`

func TestParseSaved(t *testing.T) {
	g := parseGraph(json.RawMessage(savedFile))
	require.Equal(t, `node 1 "The photo" (LoadImage)`, g.name("1"))
	require.Equal(t, "node 3:8 (LoadImage)", g.name("3:8"))
	require.Equal(t, []string{"clip.mp4", "inner.png", "photo.png"}, g.names())
	require.Less(t, len(g), 200, "a subgraph in itself ends")
	require.Empty(t, parseGraph(json.RawMessage(`{"nodes":{}}`)))
}

// TestSubmitSaved: a file as the editor saves it is sent as it is, with the files that its nodes name.
func TestSubmitSaved(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "saved.json")
	require.NoError(t, os.WriteFile(file, []byte(savedFile), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "photo.png"), []byte("x"), 0o600))
	sh := newShell(t, s)
	require.Equal(t, 2, sh.run("submit", file, "--random-seed"))
	require.Contains(t, sh.err.String(), "Export (API)")
	require.Equal(t, 0, sh.run("submit", file, "--no-wait"), sh.err.String())
	var sent struct {
		Workflow json.RawMessage   `json:"workflow"`
		Images   []json.RawMessage `json:"images"`
	}
	calls := s.Calls("POST /submit_workflow")
	require.Len(t, calls, 1)
	require.NoError(t, json.Unmarshal(calls[0].Body, &sent))
	require.JSONEq(t, savedFile, string(sent.Workflow))
	require.Len(t, sent.Images, 1)
}
