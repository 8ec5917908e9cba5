package editor

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Class is a node class as the editor draws it.
type Class struct {
	Name string

	title   string
	inputs  []*input // in the order in which the editor makes their widgets
	outputs []string // types
	// core says that it comes with ComfyUI: no script of a custom node's pack adds widgets to it.
	core bool
	// uploads says that the editor adds a button for a file, whose value is saved and means nothing.
	uploads bool
}

// input is one input of a class.
type input struct {
	name, kind string // the kind of a choice is COMBO
	force      bool   // never a widget
	control    int    // the widgets behind it that change it after a run
	button     bool   // a button behind it that loads its choices anew
	multiline  bool
	prompt     bool // {one|two} in its text is a choice
	// min, max, step and round are those of numbers; nil where there is none.
	min, max, step, round *float64
	options               []branch // of COMFY_DYNAMICCOMBO_V3
}

// branch is an option of a choice that brings inputs of its own.
type branch struct {
	key    string
	inputs []*input
}

// Kinds of inputs for which the editor makes a widget. A custom node's pack may bring its own kinds; those are not
// known here, and count as plain inputs.
var (
	valueKinds = []string{"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO", "COLOR", dynamicCombo}
	// editorKinds take their value from something that the editor shows: a camera, a scene, a drawing.
	editorKinds = []string{"WEBCAM", "AUDIO_RECORD", "LOAD_3D", "LOAD_3D_ADVANCED", "LOAD_3D_ANIMATION", "CHART",
		"GALLERIA", "MARKDOWN", "TEXTAREA", "BOUNDING_BOX", "BOUNDING_BOXES", "PAINTER", "COMPOSITOR", "CURVE", "RANGE", "VIDEO_EDIT",
		"LIGHT_INFO_PREVIEW", "COLORS", "CAMERA_INFO_STATE", "CAMERA_ANGLE_VIEW", "COMFY_BRANCH_INPUT_NAMES",
		"COMFY_BRANCH_SELECTOR", "COMFY_DYNAMICGROUP_V3"}
)

const (
	dynamicCombo = "COMFY_DYNAMICCOMBO_V3"
	imageCompare = "IMAGECOMPARE" // shows two pictures; the editor sends the same value always, and saves none
)

// isWidget says whether the editor makes a widget for the input.
func (in *input) isWidget() bool { return !in.force && slices.Contains(valueKinds, in.kind) }

// byEditor says whether only the editor can give the input its value.
func (in *input) byEditor() bool { return !in.force && slices.Contains(editorKinds, in.kind) }

// ParseClass reads one class of ComfyUI's /object_info; nil where it is of a shape that is not known.
func ParseClass(name string, raw json.RawMessage) *Class {
	var info struct {
		Input struct {
			Required json.RawMessage `json:"required"`
			Optional json.RawMessage `json:"optional"`
		} `json:"input"`
		Order struct {
			Required []string `json:"required"`
			Optional []string `json:"optional"`
		} `json:"input_order"`
		Output       []json.RawMessage `json:"output"`
		DisplayName  string            `json:"display_name"`
		PythonModule string            `json:"python_module"`
	}
	if json.Unmarshal(raw, &info) != nil {
		return nil
	}
	c := &Class{Name: name, title: info.DisplayName, core: info.PythonModule == "nodes" ||
		strings.HasPrefix(info.PythonModule, "comfy_extras.") || strings.HasPrefix(info.PythonModule, "comfy_api_nodes.")}
	if c.title == "" {
		c.title = name
	}
	required, optional := parseInputs(info.Input.Required, info.Order.Required), parseInputs(info.Input.Optional, info.Order.Optional)
	c.inputs = slices.Concat(required, optional)
	for _, kind := range info.Output {
		c.outputs = append(c.outputs, kindOf(kind))
	}
	for _, in := range required {
		c.uploads = c.uploads || in.uploads(info.Input.Required)
	}
	return c
}

// parseInputs reads one group of inputs, in the order that ComfyUI gives them, or else that of the JSON.
func parseInputs(raw json.RawMessage, order []string) (inputs []*input) {
	specs := object(raw)
	for _, name := range append(slices.Clone(order), keys(raw)...) {
		if spec, ok := specs[name]; ok {
			inputs = append(inputs, parseInput(name, list(spec)))
			delete(specs, name)
		}
	}
	return inputs
}

func parseInput(name string, spec []json.RawMessage) *input {
	in := &input{name: name}
	if len(spec) == 0 {
		return in
	}
	in.kind = kindOf(spec[0])
	if len(spec) < 2 {
		spec = append(spec, json.RawMessage(`{}`))
	}
	o := object(spec[1])
	// A plain widget may be asked for where the input's kind is another.
	if w := word(o["widgetType"]); w != "" {
		in.kind = w
	}
	in.force = truth(o["forceInput"])
	in.multiline, in.prompt = truth(o["multiline"]), truth(o["dynamicPrompts"])
	in.min, in.max, in.step, in.round = float(o["min"]), float(o["max"]), float(o["step"]), float(o["round"])
	control, said := o["control_after_generate"]
	switch in.kind {
	case "INT":
		if truth(control) || !said && (name == "seed" || name == "noise_seed") {
			in.control = 1
		}
	case "COMBO":
		if truth(control) {
			in.control = 2 // the second filters the choices
		}
		in.button = truth(object(o["remote"])["refresh_button"])
	case dynamicCombo:
		for _, raw := range list(o["options"]) {
			f := object(raw)
			inputs := object(f["inputs"])
			in.options = append(in.options, branch{key: word(f["key"]),
				inputs: slices.Concat(parseInputs(inputs["required"], nil), parseInputs(inputs["optional"], nil))})
		}
	}
	return in
}

// uploads says whether the input lets a person send a file, by its options in raw.
func (in *input) uploads(raw json.RawMessage) bool {
	spec := list(object(raw)[in.name])
	if in.kind != "COMBO" || len(spec) < 2 {
		return false
	}
	o := object(spec[1])
	return truth(o["image_upload"]) || truth(o["video_upload"]) || truth(o["animated_image_upload"]) || in.name == "audio" && truth(o["audio_upload"])
}

// kindOf reads a type: its name, or the list of a choice's options.
func kindOf(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '[' {
		return "COMBO"
	}
	return word(raw)
}

// keys lists an object's keys as they stand.
func keys(raw json.RawMessage) (names []string) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return names
		}
		names = append(names, name)
	}
	return names
}

// truth is JavaScript's, of what stands in options.
func truth(raw json.RawMessage) bool {
	switch string(raw) {
	case "", "null", "false", "0", `""`:
		return false
	}
	return true
}

func float(raw json.RawMessage) *float64 {
	var f float64
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &f) != nil {
		return nil
	}
	return &f
}
