package main

import (
	"encoding/json"
	"fmt"
)

// Graphs in ComfyUI's API format, of its own nodes, so that they run without a model and without a GPU.

// clouds draws one candidate.
func clouds(seed int, detail float64) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{
		"1": {"class_type": "EmptyImage", "inputs": {"width": 256, "height": 256, "batch_size": 1, "color": 3368601}},
		"2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": %d, "strength": %g}},
		"3": {"class_type": "ImageBlur", "inputs": {"image": ["2", 0], "blur_radius": 2, "sigma": 1.0}},
		"4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "candidate"}}
	}`, seed, detail))
}

// upscale reads the file that the job calls picked.png.
func upscale(size int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{
		"1": {"class_type": "LoadImage", "inputs": {"image": "picked.png"}},
		"2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "width": %[1]d, "height": %[1]d, "crop": "disabled"}},
		"3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x%[1]d"}}
	}`, size))
}

// broken passes every check, and fails on the GPU: its decoder makes 16 channels, which no picture has.
func broken() json.RawMessage {
	return json.RawMessage(`{
		"1": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
		"2": {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}},
		"3": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["2", 0]}},
		"4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "broken"}}
	}`)
}

// poster takes a CPU a while, in small steps between which it can be stopped.
func poster(number, steps int) json.RawMessage {
	nodes := fmt.Sprintf(`{
		"1": {"class_type": "LoadImage", "inputs": {"image": "picked.png"}},
		"2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 768, "height": %d, "crop": "disabled"}}`, 768+number)
	last := 2
	for range steps {
		nodes += fmt.Sprintf(`,
		"%d": {"class_type": "ImageBlur", "inputs": {"image": ["%d", 0], "blur_radius": 8, "sigma": 0.5}}`, last+1, last)
		last++
	}
	return json.RawMessage(nodes + fmt.Sprintf(`,
		"%d": {"class_type": "SaveImage", "inputs": {"images": ["%d", 0], "filename_prefix": "poster"}}
	}`, last+1, last))
}
