package catalog

import (
	"encoding/json"
	"strings"
)

// input is what a class declares about one of its inputs.
type input struct {
	name     string
	required bool
	// kind is the type's name; "" for a list of options, and for what is no name.
	kind string
	// combo says that the value is chosen from options; comboType that it is declared by the type "COMBO".
	combo, comboType bool
	options          []any // as JSON has them, numbers as json.Number
	texts            map[string]bool
	min, max         json.Number // "" where there is none
	upload           upload
	remote, multi    bool
	// own says that the class checks the value itself, so that ComfyUI leaves min, max and the list alone.
	own bool
}

// upload is what kind of file an input lets a user send to ComfyUI's input folder.
type upload string

const (
	uploadNone  upload = ""
	uploadImage upload = "image"
	uploadVideo upload = "video"
	uploadAudio upload = "audio"
	uploadFile  upload = "file"
)

// ownChecks are the inputs of ComfyUI's own classes that VALIDATE_INPUTS takes (nodes.py, nodes_audio.py and
// nodes_video.py of 0.3.75; CustomCombo came later). All of these but the last look whether the file exists.
var ownChecks = map[[2]string]upload{
	{"LoadImage", "image"}:       uploadImage,
	{"LoadImageMask", "image"}:   uploadImage,
	{"LoadImageOutput", "image"}: uploadImage,
	{"LoadVideo", "file"}:        uploadVideo,
	{"LoadAudio", "audio"}:       uploadAudio,
	{"LoadLatent", "latent"}:     uploadFile,
	{"CustomCombo", "choice"}:    uploadNone,
}

// parseInput reads one specification: [type] or [type, options], where the type is a name or a list of options.
func parseInput(cl *class, name string, raw json.RawMessage, required bool) *input {
	in := &input{name: name, required: required}
	in.upload, in.own = ownCheck(cl, name)
	var spec []json.RawMessage
	if json.Unmarshal(raw, &spec) != nil || len(spec) == 0 {
		return in
	}
	var o struct {
		Options     json.RawMessage `json:"options"`
		Min         json.RawMessage `json:"min"`
		Max         json.RawMessage `json:"max"`
		ImageUpload any             `json:"image_upload"`
		VideoUpload any             `json:"video_upload"`
		AudioUpload any             `json:"audio_upload"`
		FileUpload  any             `json:"file_upload"`
		Remote      json.RawMessage `json:"remote"`
		RemoteCombo json.RawMessage `json:"remote_combo"`
		Multiselect any             `json:"multiselect"`
		MultiSelect any             `json:"multi_select"`
	}
	if len(spec) > 1 && json.Unmarshal(spec[1], &o) != nil {
		return in // options of a shape that we do not know: nothing is certain
	}
	in.min, in.max = number(o.Min), number(o.Max)
	in.remote = set(o.Remote) || set(o.RemoteCombo)
	in.multi = truth(o.Multiselect) || truth(o.MultiSelect)
	switch {
	case truth(o.ImageUpload):
		in.upload = uploadImage
	case truth(o.VideoUpload):
		in.upload = uploadVideo
	case truth(o.AudioUpload):
		in.upload = uploadAudio
	case truth(o.FileUpload):
		in.upload = uploadFile
	}
	if strings.HasPrefix(strings.TrimSpace(string(spec[0])), "[") {
		in.combo = true
		in.choices(spec[0])
		return in
	}
	if json.Unmarshal(spec[0], &in.kind) == nil && in.kind == "COMBO" {
		in.combo, in.comboType = true, true
		in.choices(o.Options)
	}
	return in
}

// ownCheck goes by the class's name, for classes of ComfyUI's own alone.
func ownCheck(cl *class, name string) (upload, bool) {
	if !cl.plain {
		return uploadNone, false
	}
	kind, ok := ownChecks[[2]string{cl.name, name}]
	return kind, ok
}

func (in *input) choices(raw json.RawMessage) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if d.Decode(&in.options) != nil {
		in.options = nil
	}
	in.texts = make(map[string]bool, len(in.options))
	for _, o := range in.options {
		if s, ok := o.(string); ok {
			in.texts[s] = true
		}
	}
}

// dynamic says that the declared name stands for others, which the newer ComfyUI makes from what the graph gives.
func (in *input) dynamic() bool { return strings.HasPrefix(in.kind, "COMFY_") }

func number(raw json.RawMessage) json.Number {
	var n json.Number
	if len(raw) == 0 || raw[0] == '"' || json.Unmarshal(raw, &n) != nil {
		return ""
	}
	return n
}

func set(raw json.RawMessage) bool {
	return len(raw) > 0 && string(raw) != "null" && string(raw) != "false"
}

// truth is Python's, for what stands in options.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	default:
		return true
	}
}
