package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

// graph is what the commands read of a workflow: its nodes by ID. The server alone decides what is wrong with one, so
// whatever is not a node is left out.
type graph map[string]node

type node struct {
	ClassType string                     `json:"class_type"`
	Inputs    map[string]json.RawMessage `json:"inputs"`
	Meta      struct {
		Title string `json:"title"`
	} `json:"_meta"`
}

// readWorkflow reads a workflow from a file, or from in where name is "-", and returns the folder in which its files
// may lie; none for in.
func readWorkflow(in io.Reader, name string) (workflow json.RawMessage, dir string, err error) {
	if name == "-" {
		workflow, err = io.ReadAll(in)
	} else {
		dir = filepath.Dir(name)
		workflow, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, "", usagef("cannot read the workflow: %w", err)
	}
	workflow = bytes.TrimPrefix(workflow, []byte("\ufeff")) // some editors on Windows
	var v json.RawMessage
	if err := json.Unmarshal(workflow, &v); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			before := workflow[:syntax.Offset]
			return nil, "", usagef("%s is not JSON: line %d: %w", name, 1+bytes.Count(before, []byte("\n")), err)
		}
		return nil, "", usagef("%s is not JSON: %w", name, err)
	}
	return workflow, dir, nil
}

func parseGraph(workflow json.RawMessage) graph {
	if g := parseSaved(workflow); g != nil {
		return g
	}
	var nodes map[string]json.RawMessage
	if json.Unmarshal(workflow, &nodes) != nil {
		return nil
	}
	g := graph{}
	for id, raw := range nodes {
		var n node
		if json.Unmarshal(raw, &n) == nil && n.ClassType != "" {
			g[id] = n
		}
	}
	return g
}

// title is what the editor shows above a node.
func (g graph) title(id string) string {
	n, ok := g[id]
	if !ok {
		return "node " + id
	}
	return first(n.Meta.Title, n.ClassType)
}

// name tells a node from all others.
func (g graph) name(id string) string {
	n, ok := g[id]
	switch {
	case !ok:
		return "node " + id
	case n.Meta.Title != "" && n.Meta.Title != n.ClassType:
		return fmt.Sprintf("node %s %q (%s)", id, n.Meta.Title, n.ClassType)
	}
	return fmt.Sprintf("node %s (%s)", id, n.ClassType)
}

// seed is one that randomSeeds has set.
type seed struct {
	node, input string
	value       uint64
}

// randomSeeds replaces every input called seed or noise_seed whose value is a number, each by a number of its own below
// 2^32: nodes written on NumPy take no larger ones. All other bytes stay as they are.
func randomSeeds(workflow json.RawMessage) (json.RawMessage, []seed, error) {
	r := reseeder{in: workflow, d: json.NewDecoder(bytes.NewReader(workflow))}
	r.d.UseNumber()
	if err := r.value(nil); err != nil {
		return nil, nil, err
	}
	r.out.Write(workflow[r.kept:])
	return r.out.Bytes(), r.seeds, nil
}

type reseeder struct {
	in    []byte
	d     *json.Decoder
	out   bytes.Buffer
	kept  int64 // up to here in is in out
	seeds []seed
}

// value reads the next value; path holds the keys that lead to it.
func (r *reseeder) value(path []string) error {
	token, err := r.d.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case json.Delim:
		for r.d.More() {
			key := ""
			if token == '{' {
				name, err := r.d.Token()
				if err != nil {
					return err
				}
				key, _ = name.(string)
			}
			if err := r.value(append(path, key)); err != nil {
				return err
			}
		}
		_, err = r.d.Token()
		return err
	case json.Number:
		if len(path) == 3 && path[1] == "inputs" && (path[2] == "seed" || path[2] == "noise_seed") {
			value := uint64(rand.Uint32())
			r.out.Write(r.in[r.kept : r.d.InputOffset()-int64(len(token))])
			r.out.WriteString(strconv.FormatUint(value, 10))
			r.kept = r.d.InputOffset()
			r.seeds = append(r.seeds, seed{path[0], path[2], value})
		}
	}
	return nil
}
