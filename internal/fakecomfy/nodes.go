package fakecomfy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"path"
	"strings"
	"time"
)

// class is a node class.
type class struct {
	inputs  []input
	returns []string
	output  bool
	always  bool // never cached
	run     func(x *execution, id string, in map[string]any) ([]any, map[string]any, *raised)
}

// input is a required input: a type with limits, or a list of values.
type input struct {
	name     string
	kind     string
	min, max float64
	values   []string
}

type file struct {
	data []byte
	at   time.Time
}

type latent struct{ w, h, n int }

func number(name, kind string, lo, hi float64) input {
	return input{name: name, kind: kind, min: lo, max: hi}
}

// builtin returns the classes of a bare ComfyUI that the tests use, with the real ones' inputs.
func builtin() map[string]*class {
	img := input{name: "images", kind: "IMAGE"}
	prefix := input{name: "filename_prefix", kind: "STRING"}
	return map[string]*class{
		"EmptyImage": {returns: []string{"IMAGE"}, run: emptyImage, inputs: []input{number("width", "INT", 1, 16384),
			number("height", "INT", 1, 16384), number("batch_size", "INT", 1, 4096), number("color", "INT", 0, 0xffffff)}},
		"ImageAddNoise": {returns: []string{"IMAGE"}, run: addNoise, inputs: []input{{name: "image", kind: "IMAGE"},
			number("seed", "INT", 0, 1<<64-1), number("strength", "FLOAT", 0, 1)}},
		"LoadImage": {returns: []string{"IMAGE", "MASK"}, run: loadImage, inputs: []input{{name: "image", values: []string{}}}},
		"SaveImage": {output: true, inputs: []input{img, prefix}, run: func(x *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
			return x.save("output", fmt.Sprint(in["filename_prefix"]), in["images"])
		}},
		"PreviewImage": {output: true, inputs: []input{img}, run: func(x *execution, id string, in map[string]any) ([]any, map[string]any, *raised) {
			return x.save("temp", "ComfyUI_temp_"+id, in["images"])
		}},
		"SaveImageWebsocket":     {output: true, always: true, inputs: []input{img}, run: sendImages(true)},
		"ETN_SendImageWebSocket": {output: true, inputs: []input{img}, run: sendImages(false)},
		"StringConcatenate": {returns: []string{"STRING"}, inputs: []input{{name: "string_a", kind: "STRING"}, {name: "string_b", kind: "STRING"}, {name: "delimiter", kind: "STRING"}},
			run: func(_ *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
				return []any{fmt.Sprint(in["string_a"]) + fmt.Sprint(in["delimiter"]) + fmt.Sprint(in["string_b"])}, nil, nil
			}},
		"PreviewAny": {output: true, inputs: []input{{name: "source", kind: "*"}}, run: func(_ *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
			return nil, map[string]any{"text": []any{fmt.Sprint(in["source"])}}, nil
		}},
		"VAELoader": {returns: []string{"VAE"}, inputs: []input{{name: "vae_name", values: []string{"pixel_space"}}},
			run: func(*execution, string, map[string]any) ([]any, map[string]any, *raised) {
				return []any{"vae"}, nil, nil
			}},
		"EmptyChromaRadianceLatentImage": {returns: []string{"LATENT"}, inputs: []input{number("width", "INT", 16, 16384), number("height", "INT", 16, 16384), number("batch_size", "INT", 1, 4096)},
			run: func(_ *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
				return []any{latent{whole(in["width"]), whole(in["height"]), whole(in["batch_size"])}}, nil, nil
			}},
		"VAEDecodeTiled": {returns: []string{"IMAGE"}, run: decodeTiled, inputs: []input{{name: "samples", kind: "LATENT"}, {name: "vae", kind: "VAE"}, number("tile_size", "INT", 64, 4096),
			number("overlap", "INT", 0, 4096), number("temporal_size", "INT", 8, 4096), number("temporal_overlap", "INT", 4, 4096)}},
	}
}

func shower(ui map[string]any) *class {
	return &class{output: true, inputs: []input{{name: "source", kind: "*"}}, run: func(*execution, string, map[string]any) ([]any, map[string]any, *raised) {
		return nil, ui, nil
	}}
}

func whole(v any) int { f, _ := v.(float64); return int(f) }

func emptyImage(_ *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
	return []any{plain(whole(in["width"]), whole(in["height"]), whole(in["batch_size"]), whole(in["color"]))}, nil, nil
}

func plain(w, h, n, rgb int) []image.Image {
	c := color.NRGBA{uint8(rgb >> 16), uint8(rgb >> 8), uint8(rgb), 255}
	var out []image.Image
	for range n {
		m := image.NewNRGBA(image.Rect(0, 0, w, h))
		for i := 0; i < len(m.Pix); i += 4 {
			m.Pix[i], m.Pix[i+1], m.Pix[i+2], m.Pix[i+3] = c.R, c.G, c.B, c.A
		}
		out = append(out, m)
	}
	return out
}

func addNoise(_ *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
	from, err := images(in["image"])
	if err != nil {
		return nil, nil, err
	}
	var out []image.Image
	for i, m := range from {
		out = append(out, noise(m.Bounds(), uint64(whole(in["seed"]))+uint64(i)))
	}
	return []any{out}, nil, nil
}

// noise is a picture that nothing makes smaller.
func noise(r image.Rectangle, seed uint64) image.Image {
	random := rand.New(rand.NewPCG(seed, 1))
	n := image.NewNRGBA(r)
	for i := range n.Pix {
		n.Pix[i] = byte(random.Uint32()) | 1
	}
	for i := 3; i < len(n.Pix); i += 4 {
		n.Pix[i] = 255
	}
	return n
}

func images(v any) ([]image.Image, *raised) {
	list, ok := v.([]image.Image)
	if !ok {
		return nil, &raised{"AttributeError", fmt.Sprintf("'%T' object has no attribute 'shape'", v)}
	}
	return list, nil
}

func loadImage(x *execution, _ string, in map[string]any) ([]any, map[string]any, *raised) {
	name := strings.TrimSuffix(fmt.Sprint(in["image"]), " [input]")
	x.s.mu.Lock()
	f := x.s.files["input"][name]
	x.s.mu.Unlock()
	if f == nil {
		return nil, nil, &raised{"FileNotFoundError", "[Errno 2] No such file or directory: '/srv/comfyui/input/" + name + "'"}
	}
	m, _, err := image.Decode(bytes.NewReader(f.data))
	if err != nil {
		return nil, nil, &raised{"PIL.UnidentifiedImageError", "cannot identify image file '/srv/comfyui/input/" + name + "'"}
	}
	return []any{[]image.Image{m}, nil}, nil, nil
}

// save writes images under numbers that go on where the folder's last one ends.
func (x *execution) save(folder, prefix string, v any) ([]any, map[string]any, *raised) {
	list, bad := images(v)
	if bad != nil {
		return nil, nil, bad
	}
	sub, base := path.Split(prefix)
	sub = strings.Trim(sub, "/")
	var shown []any
	for _, m := range list {
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			return nil, nil, &raised{"ValueError", err.Error()}
		}
		x.s.mu.Lock()
		n := 1
		for ; x.s.files[folder][join(sub, fmt.Sprintf("%s_%05d_.png", base, n))] != nil; n++ {
			continue
		}
		name := fmt.Sprintf("%s_%05d_.png", base, n)
		if x.s.life == x.p.life {
			x.s.files[folder][join(sub, name)] = &file{b.Bytes(), time.Now()}
		}
		x.s.mu.Unlock()
		shown = append(shown, map[string]any{"filename": name, "subfolder": sub, "type": folder})
	}
	return nil, map[string]any{"images": shown}, nil
}

// sendImages makes ComfyUI's own node, which shows nothing, or that of the tooling nodes, which lists what it sent.
func sendImages(core bool) func(x *execution, id string, in map[string]any) ([]any, map[string]any, *raised) {
	return func(x *execution, id string, in map[string]any) ([]any, map[string]any, *raised) {
		list, bad := images(in["images"])
		if bad != nil {
			return nil, nil, bad
		}
		var shown []any
		for i, m := range list {
			var b bytes.Buffer
			if err := png.Encode(&b, m); err != nil {
				return nil, nil, &raised{"ValueError", err.Error()}
			}
			if core {
				x.tell("progress", map[string]any{"value": i, "max": len(list), "node": id})
			}
			x.s.sendImage(x.p, id, "png", b.Bytes())
			shown = append(shown, map[string]any{"source": "websocket", "content-type": "image/png", "type": "output"})
		}
		if core {
			return nil, nil, nil
		}
		return nil, map[string]any{"images": shown}, nil
	}
}

// decodeTiled is the slow node: a step for each tile, and an interrupt takes effect at the next one.
func decodeTiled(x *execution, id string, in map[string]any) ([]any, map[string]any, *raised) {
	l, ok := in["samples"].(latent)
	tile := whole(in["tile_size"])
	if !ok || tile == 0 {
		return nil, nil, &raised{"TypeError", "no latent"}
	}
	x.s.mu.Lock()
	step, previews, side := x.s.step, x.s.previews, x.s.side
	held, gate := x.s.heldStep, x.s.stepGate
	x.s.mu.Unlock()
	steps := max(l.w/tile, 1) * max(l.h/tile, 1)
	tick := time.NewTicker(step)
	defer tick.Stop()
	var preview bytes.Buffer
	_ = jpeg.Encode(&preview, noise(image.Rect(0, 0, side, side), 1), nil)
	for i := range steps {
		select {
		case <-tick.C:
		case <-x.p.stop:
		}
		if x.stopped() {
			return nil, nil, errInterrupted
		}
		x.tell("progress", map[string]any{"value": i + 1, "max": steps, "node": id})
		x.tell("progress_state", map[string]any{"nodes": map[string]any{id: map[string]any{"state": "running", "value": i + 1, "max": steps}}})
		if previews {
			x.s.sendImage(x.p, id, "jpeg", preview.Bytes())
		}
		if i+1 == held {
			gate.pass(x.p.stop)
		}
	}
	return []any{plain(l.w, l.h, l.n, 0x7f7f7f)}, nil, nil
}

// info is /object_info. The caller holds mu.
func (s *Server) info() map[string]any {
	out := map[string]any{}
	for name, c := range s.classes {
		required, order := map[string]any{}, []string{}
		for _, in := range c.inputs {
			order = append(order, in.name)
			switch {
			case in.values != nil && in.name == "image": // the picker lists the top folder only
				names := []string{}
				for f := range s.files["input"] {
					if !strings.Contains(f, "/") {
						names = append(names, f)
					}
				}
				required[in.name] = []any{names, map[string]any{"image_upload": true}}
			case in.values != nil:
				required[in.name] = []any{in.values}
			case in.max > 0:
				required[in.name] = []any{in.kind, map[string]any{"default": in.min, "min": json.Number(fmt.Sprintf("%.0f", in.min)), "max": json.Number(fmt.Sprintf("%.0f", in.max))}}
			default:
				required[in.name] = []any{in.kind, map[string]any{}}
			}
		}
		returns := append([]string{}, c.returns...)
		lists := make([]bool, len(returns))
		out[name] = map[string]any{"input": map[string]any{"required": required}, "input_order": map[string]any{"required": order},
			"output": returns, "output_is_list": lists, "output_name": returns, "name": name, "display_name": name,
			"description": "", "python_module": "nodes", "category": "fake", "output_node": c.output}
	}
	return out
}
