// Package examples holds the workflows of this folder, for `comfyd doctor --gpu`.
package examples

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.json
var files embed.FS

// Example is a workflow in ComfyUI's API format.
type Example struct {
	Name     string // the file's, without .json
	Workflow []byte
}

// All are the examples by name, in alphabetical order.
func All() ([]Example, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("reading the examples: %w", err)
	}
	var all []Example
	for _, e := range entries {
		raw, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading the example %s: %w", e.Name(), err)
		}
		all = append(all, Example{Name: strings.TrimSuffix(e.Name(), ".json"), Workflow: raw})
	}
	return all, nil
}
