package app_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestManyLabelsFit: the most labels that the API takes fit into Temporal's attribute.
func TestManyLabelsFit(t *testing.T) {
	d := onDouble(t, nil)
	metadata := map[string]string{}
	for n := range 8 {
		metadata[fmt.Sprint(n)] = strings.Repeat("x", 250)
	}
	// Each label has a byte for its key, one for "=", two quotes, and a comma or bracket; one byte more closes the list.
	metadata["z"] = strings.Repeat("x", 2<<10-1-5-8*255)
	id := d.submit(map[string]any{"workflow": graph(8, "labels"), "metadata": metadata})
	require.Equal(t, "COMPLETED", d.finish(id)["status"])
	metadata["z"] += "x"
	r := d.do("POST", "/submit_workflow", map[string]any{"workflow": graph(8, "labels"), "metadata": metadata})
	require.Equal(t, 422, r.code, "%v", r.body)
	require.Equal(t, "limit_exceeded", r.body["code"])
	require.Contains(t, r.body["error"], "metadata")
	require.Contains(t, r.body["error"], "2048")
}

// TestManyInputsFit: the marks of the most inputs that a job may have, and of its graph, fit into Temporal's attribute.
func TestManyInputsFit(t *testing.T) {
	d := onDouble(t, nil)
	var images []any
	for n := range 128 {
		images = append(images, map[string]any{"name": fmt.Sprintf("%d.png", n), "image": base64.StdEncoding.EncodeToString([]byte{byte(n), 1})})
	}
	id := d.submit(map[string]any{"workflow": large(7), "images": images})
	require.Equal(t, "COMPLETED", d.finish(id)["status"])
	require.Len(t, d.stored("inputs/", "graphs/"), 129)
	d.delete(id)
	require.Empty(t, d.stored())
}
