package catalog

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// choice checks a value that must be one of a list.
func (k *checker) choice(at place, v any) {
	in := at.in
	name, isText := v.(string)
	switch {
	case in.remote, in.among(v), isText && k.comes(name):
	case in.own:
		if !isText && in.upload != uploadNone {
			k.fault(at.id, comfy.InputError{
				Type:      "custom_validation_failed",
				Message:   fmt.Sprintf("%s must be the name of a file, a text, but is %s", at, show(v)),
				Details:   fmt.Sprintf("%s - Invalid %s file: %s", in.name, in.upload, show(v)),
				ExtraInfo: extra("input_name", in.name, "received_value", received(v)),
			})
		} else if isText && in.surelyMissing(name) {
			k.noFile(at, name)
		}
	case !at.cl.plain: // may check for itself
	case !isText && in.multi: // old versions refuse what new ones take
	case in.comboType && (!k.c.checksCombo || len(in.options) == 0 && modelFolder(at.cl.name, in.name) == ""):
	default:
		k.notInList(at, v)
	}
}

// comes says whether a file of this name comes with the job.
func (k *checker) comes(name string) bool {
	bare, _ := annotation(name)
	return k.files[name] || k.files[bare]
}

// media are the endings that ComfyUI lists for sure; a file of another ending may be there without being listed.
func (u upload) lists(ending string) bool {
	switch strings.ToLower(ending) {
	case ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp":
		return u == uploadImage
	case ".mp4", ".webm", ".mov", ".avi":
		return u == uploadVideo || u == uploadAudio
	case ".mp3", ".wav":
		return u == uploadAudio
	case ".latent":
		return u == uploadFile
	}
	return false
}

// surelyMissing says that a loader, which takes any file of ComfyUI's folders whether it lists it or not, cannot find
// this one: a plain name of a kind that would be listed.
func (in *input) surelyMissing(name string) bool {
	bare, folder := annotation(name)
	if folder != "" && folder != "input" || strings.ContainsAny(bare, `/\:`) || !in.upload.lists(path.Ext(bare)) {
		return false
	}
	for listed := range in.texts {
		if strings.EqualFold(listed, bare) { // folders of some systems do not tell case apart
			return false
		}
	}
	return true
}

func (k *checker) noFile(at place, name string) {
	near := k.near(name, append(k.jobFiles(), at.in.list()...))
	hint := ""
	if len(near) > 0 {
		hint = "; the nearest are " + strings.Join(near, ", ")
	}
	k.fault(at.id, comfy.InputError{
		Type:    "custom_validation_failed",
		Message: fmt.Sprintf("%s names the file %s, which neither came with the job nor lies in ComfyUI's input folder%s", at, quote(name), hint),
		Details: fmt.Sprintf("%s - Invalid %s file: %s", at.in.name, at.in.upload, shorten(name)),
		ExtraInfo: extra("input_name", at.in.name, "received_value", shorten(name), "allowed", first(at.in.list()),
			"allowed_count", len(at.in.options), "nearest", near),
	})
}

func (k *checker) notInList(at place, v any) {
	options := at.in.list()
	text, _ := v.(string)
	near := k.near(text, options)
	folder := modelFolder(at.cl.name, at.in.name)
	var message string
	switch {
	case folder != "" || modelFile(text):
		message = fmt.Sprintf("%s asks for the model file %s, which this ComfyUI does not have", at, show(v))
		if folder != "" {
			message += fmt.Sprintf(" in models/%s", folder)
		}
		switch {
		case len(options) == 0:
			message += "; it has none there"
		case len(near) == 0 && len(options) <= maxAllowed:
			message += "; it has " + shorten(strings.Join(options, ", "))
		default:
			message += fmt.Sprintf("; it has %d there", len(options))
		}
	case len(options) == 0:
		message = fmt.Sprintf("%s is %s, and the list it must be chosen from is empty", at, show(v))
	case len(options) <= maxAllowed:
		message = fmt.Sprintf("%s is %s, but must be one of %s", at, show(v), shorten(strings.Join(options, ", ")))
	default:
		message = fmt.Sprintf("%s is %s, which is none of the %d allowed", at, show(v), len(options))
	}
	if len(near) > 0 {
		message += "; the nearest are " + strings.Join(near, ", ")
	}
	info := extra("input_name", at.in.name, "received_value", received(v), "allowed", first(options), "allowed_count", len(at.in.options), "nearest", near)
	if folder != "" {
		info["model_folder"] = folder
	}
	k.fault(at.id, comfy.InputError{
		Type:      "value_not_in_list",
		Message:   message,
		Details:   fmt.Sprintf("%s: %s not in the list of %d", at.in.name, show(v), len(at.in.options)),
		ExtraInfo: info,
	})
}

// list is the options as texts, in ComfyUI's order.
func (in *input) list() []string {
	list := make([]string, 0, len(in.options))
	for _, o := range in.options {
		switch o := o.(type) {
		case string:
			list = append(list, o)
		case json.Number:
			list = append(list, string(o))
		case bool:
			list = append(list, fmt.Sprint(o))
		}
	}
	return list
}

func (k *checker) jobFiles() []string {
	list := make([]string, 0, len(k.files))
	for name := range k.files {
		list = append(list, name)
	}
	return list
}

func first(options []string) []string { return options[:min(len(options), maxAllowed)] }
