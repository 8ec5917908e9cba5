package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"sync/atomic"
)

// job is a graph, and what must come out of it.
type job struct {
	graph  []byte
	images int
	size   int // of each image's sides
	// value is the input of a node that no other job has. ComfyUI writes the graph into each image that it saves, so that an
	// image says whose it is.
	node, input string
	value       int64
}

// marks numbers the jobs of this process, so that no cache knows any of them.
var marks atomic.Int64

// tiny is a job of one picture of 64x64 pixels in one colour.
func tiny() job {
	j := job{images: 1, size: 64, node: "1", input: "color", value: marks.Add(1)}
	j.graph = fmt.Appendf(nil, `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":%d}},`+
		`"9":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"bench"}}}`, j.value)
	return j
}

// noise is a job of pictures that no PNG makes smaller, as photographs are.
func noise(images, size int) job {
	j := job{images: images, size: size, node: "2", input: "seed", value: marks.Add(1)}
	j.graph = fmt.Appendf(nil, `{"1":{"class_type":"EmptyImage","inputs":{"width":%d,"height":%d,"batch_size":%d,"color":8421504}},`+
		`"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":%d,"strength":0.5}},`+
		`"9":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"bench"}}}`, size, size, images, j.value)
	return j
}

// work is a job that keeps the GPU busy for some seconds, and gated one that keeps it until its gate is opened.
func work(seconds float64) job { return ours("BenchWork", fmt.Sprintf(`"seconds":%g,`, seconds)) }
func gated() job               { return ours("BenchGate", "") }

func ours(class, inputs string) job {
	j := job{images: 1, size: 64, node: "1", input: "mark", value: marks.Add(1)}
	j.graph = fmt.Appendf(nil, `{"1":{"class_type":%q,"inputs":{%s"mark":%d}},`+
		`"9":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"bench"}}}`, class, inputs, j.value)
	return j
}

// check says what is wrong with the images that somebody was given for the job.
func (j job) check(images [][]byte) error {
	if len(images) != j.images {
		return fmt.Errorf("%d images in place of %d", len(images), j.images)
	}
	for i, raw := range images {
		picture, err := png.Decode(bytes.NewReader(raw)) // looks at every checksum
		if err != nil {
			return fmt.Errorf("image %d: %w", i, err)
		}
		if b := picture.Bounds(); b.Dx() != j.size || b.Dy() != j.size {
			return fmt.Errorf("image %d is %dx%d, not %dx%d", i, b.Dx(), b.Dy(), j.size, j.size)
		}
		graph, err := embedded(raw)
		if err != nil {
			return fmt.Errorf("image %d: %w", i, err)
		}
		if got := string(graph[j.node].Inputs[j.input]); got != fmt.Sprint(j.value) {
			return fmt.Errorf("image %d is another job's: %s is %s, not %d", i, j.input, got, j.value)
		}
		for _, other := range images[:i] {
			if bytes.Equal(raw, other) {
				return fmt.Errorf("image %d is there twice", i)
			}
		}
	}
	return nil
}

type node struct {
	Inputs map[string]json.RawMessage `json:"inputs"`
}

// embedded is the graph that ComfyUI has written into a PNG file.
func embedded(raw []byte) (map[string]node, error) {
	const signature, frame = 8, 12 // a chunk's length, type and checksum take 12 bytes
	for rest := raw[signature:]; len(rest) >= frame; {
		n := int(binary.BigEndian.Uint32(rest))
		if n > len(rest)-frame {
			break
		}
		if text, ok := bytes.CutPrefix(rest[8:8+n], []byte("prompt\x00")); ok && string(rest[4:8]) == "tEXt" {
			var graph map[string]node
			if err := json.Unmarshal(text, &graph); err != nil {
				return nil, fmt.Errorf("its graph: %w", err)
			}
			return graph, nil
		}
		rest = rest[frame+n:]
	}
	return nil, errors.New("it holds no graph")
}
