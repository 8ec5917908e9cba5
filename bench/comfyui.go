package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed node/bench_node.py
var nodes []byte

// comfyui is the one real ComfyUI that every system is measured with.
type comfyui struct {
	*program
	address string
	node    string // the folder of its extra nodes
	outputs string
}

// startComfyUI starts the ComfyUI that scripts/comfyui.sh has prepared, with folders and nodes of the bench's own.
func startComfyUI(ctx context.Context, source, dir string) (*comfyui, error) {
	c := &comfyui{node: filepath.Join(dir, "base", "custom_nodes", "bench"), outputs: filepath.Join(dir, "base", "output")}
	for _, folder := range []string{c.node, filepath.Join(dir, "base", "input"), c.outputs} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(c.node, "__init__.py"), nodes, 0o644); err != nil {
		return nil, err
	}
	var err error
	if c.address, err = freeAddress(); err != nil {
		return nil, err
	}
	_, port, _ := bytes.Cut([]byte(c.address), []byte(":"))
	c.program, err = newProgram(dir, []string{filepath.Join(source, ".venv/bin/python"), filepath.Join(source, "main.py"), "--cpu",
		"--listen", "127.0.0.1", "--port", string(port), "--disable-auto-launch", "--base-directory", filepath.Join(dir, "base")})
	if err != nil {
		return nil, err
	}
	if _, err := c.start(ctx, "http://"+c.address+"/system_stats"); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *comfyui) process() process { return process{"ComfyUI", c.pid()} }

// forget empties ComfyUI's history, so that each run begins with none.
func (c *comfyui) forget() error {
	http := connect(c.address, "", 1)
	defer http.close()
	_, err := http.want(200, "POST", "/history", []byte(`{"clear":true}`))
	return err
}

// clear empties the folder of its outputs: to find a name for an image ComfyUI reads the whole folder, and whoever comes
// later would pay for the jobs of those before.
func (c *comfyui) clear() error {
	if err := os.RemoveAll(c.outputs); err != nil {
		return err
	}
	return os.Mkdir(c.outputs, 0o755)
}

// open lets the gated job end.
func (c *comfyui) open(j job) error {
	return os.WriteFile(filepath.Join(c.node, fmt.Sprintf("open-%d", j.value)), nil, 0o644)
}

// runs tells whether ComfyUI is at a job.
func (c *comfyui) runs(j job) (bool, error) {
	http := connect(c.address, "", 1)
	defer http.close()
	raw, err := http.want(200, "GET", "/queue", nil)
	if err != nil {
		return false, err
	}
	var queue struct {
		Running [][]json.RawMessage `json:"queue_running"`
	}
	if err := json.Unmarshal(raw, &queue); err != nil {
		return false, err
	}
	for _, prompt := range queue.Running { // number, ID, graph, ...
		var graph map[string]node
		if len(prompt) > 2 && json.Unmarshal(prompt[2], &graph) == nil && string(graph[j.node].Inputs[j.input]) == fmt.Sprint(j.value) {
			return true, nil
		}
	}
	return false, nil
}

// span is when a BenchWork node began and ended, in seconds of one clock.
type span struct{ began, ended float64 }

// worked are the spans of jobs, in the order in which they ran.
func (c *comfyui) worked(of map[int64]bool) ([]span, error) {
	raw, err := os.ReadFile(filepath.Join(c.node, "work.log"))
	if err != nil {
		return nil, err
	}
	var all []span
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		var mark int64
		var s span
		if _, err := fmt.Sscan(lines.Text(), &mark, &s.began, &s.ended); err != nil {
			return nil, fmt.Errorf("work.log: %q: %w", lines.Text(), err)
		}
		if of[mark] {
			all = append(all, s)
		}
	}
	return all, nil
}
