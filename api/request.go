package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// Limits of a submission's parts, beside those that hold for every job: [comfy.MaxImages] and others.
const (
	maxFields       = 64 // of the body itself
	maxExtraPNGInfo = 1 << 20
)

// submission is the body of POST /submit_workflow.
type submission struct {
	workflow       json.RawMessage // as it came: an object, or a string that holds one
	images         []imageField
	timeoutSeconds int
	priority       int
	backend        string
	gpu            string
	metadata       map[string]string
	extraPNGInfo   json.RawMessage
	stripMetadata  bool
	webhookURL     string

	batch *batchFields // of POST /batch alone; nil elsewhere
}

// imageField is an input file: its bytes, or the URL where they are, in Image, or what POST /inputs returned in Ref.
type imageField struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Ref   string `json:"ref"`
}

// elsewhere are fields that another call takes. A client that sets one relies on it, so the job is refused rather than run
// without.
var elsewhere = map[string]string{
	"variations": "Several jobs of one workflow are sent to POST /batch.",
	"seeds":      "Several jobs of one workflow are sent to POST /batch.",
}

// decodeSubmission reads the body as it arrives. Its errors name the field; those of r itself come back as they are. batch
// takes what only POST /batch has; it is nil elsewhere.
func decodeSubmission(r io.Reader, batch *batchFields) (*submission, error) {
	var (
		sub  = submission{batch: batch}
		seen = map[string]bool{}
		bare bool // some field looks like a node of a graph that was not wrapped
	)
	dec := json.NewDecoder(skipBOM(r))
	if tok, err := dec.Token(); err != nil {
		return nil, syntaxError(err)
	} else if tok != json.Delim('{') {
		return nil, failf(CodeInvalidRequest, `The body must be a JSON object: {"workflow": {...}}.`)
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, syntaxError(err)
		}
		name, _ := tok.(string)
		switch {
		case seen[name]:
			return nil, failf(CodeInvalidRequest, "The field %q stands twice in the body.", shorten(name))
		case len(seen) == maxFields:
			return nil, failf(CodeInvalidRequest, "The body has more than %d fields. %s", maxFields, howToWrap)
		}
		seen[name] = true
		if err := sub.decodeField(dec, name, &bare); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, syntaxError(err)
	}
	if _, err := dec.Token(); err == nil {
		return nil, failf(CodeInvalidRequest, "There is something behind the end of the JSON object.")
	} else if err != io.EOF {
		return nil, syntaxError(err)
	}
	if !isNull(sub.workflow) {
		return &sub, nil
	}
	switch {
	case seen["input"]:
		return nil, failf(CodeInvalidRequest, "The field workflow is missing. Send what is in the field input without it: %s", `{"workflow": {...}}.`)
	case bare || seen["prompt"] || seen["nodes"] && seen["links"]:
		return nil, failf(CodeInvalidRequest, "The field workflow is missing. %s", howToWrap)
	}
	return nil, failf(CodeInvalidRequest, `The field workflow is missing: {"workflow": {...}}.`)
}

const howToWrap = `Put the graph into the field workflow: {"workflow": {"1": {...}}}.`

func (s *submission) decodeField(dec *json.Decoder, name string, bare *bool) error {
	switch name {
	case "workflow":
		return decodeValue(dec, name, &s.workflow)
	case "images":
		return s.decodeImages(dec)
	case "timeout_seconds":
		return decodeValue(dec, name, &s.timeoutSeconds)
	case "priority":
		return decodeValue(dec, name, &s.priority)
	case "backend":
		return decodeValue(dec, name, &s.backend)
	case "gpu":
		return decodeValue(dec, name, &s.gpu)
	case "strip_metadata":
		return decodeValue(dec, name, &s.stripMetadata)
	case "webhook_url":
		return decodeValue(dec, name, &s.webhookURL)
	case "metadata":
		return s.decodeMetadata(dec)
	case "extra_pnginfo":
		return s.decodeExtraPNGInfo(dec)
	case "variations", "seeds":
		if s.batch != nil {
			return s.batch.decode(dec, name)
		}
	}
	var other json.RawMessage
	if err := decodeValue(dec, name, &other); err != nil {
		return err
	}
	if text, ok := elsewhere[name]; ok && !isNull(other) {
		return failf(CodeNotSupported, "%s: %s", name, text)
	}
	*bare = *bare || bytes.Contains(other, []byte(`"class_type"`))
	return nil
}

func (s *submission) decodeImages(dec *json.Decoder) error {
	tok, err := dec.Token()
	switch {
	case err != nil:
		return syntaxError(err)
	case tok == nil:
		return nil
	case tok != json.Delim('['):
		return failf(CodeInvalidRequest, `images must be a list: [{"name": "photo.png", "image": "<base64>"}].`)
	}
	for dec.More() {
		if len(s.images) == comfy.MaxImages {
			return failf(CodeLimitExceeded, "images: more than %d files.", comfy.MaxImages)
		}
		var img imageField
		if err := decodeValue(dec, fmt.Sprintf("images[%d]", len(s.images)), &img); err != nil {
			return err
		}
		s.images = append(s.images, img)
	}
	if _, err := dec.Token(); err != nil {
		return syntaxError(err)
	}
	return nil
}

func (s *submission) decodeExtraPNGInfo(dec *json.Decoder) error {
	var raw json.RawMessage
	if err := decodeValue(dec, "extra_pnginfo", &raw); err != nil || isNull(raw) {
		return err
	}
	// ComfyUI's save nodes iterate over it: anything but an object fails the job there.
	if raw[0] != '{' {
		return failf(CodeInvalidRequest, "extra_pnginfo must be an object.")
	}
	compact, err := comfy.Readable(raw)
	if err != nil {
		return failf(CodeInvalidRequest, "extra_pnginfo cannot be read by ComfyUI: %s.", err)
	}
	if len(compact) > maxExtraPNGInfo {
		return failf(CodeLimitExceeded, "extra_pnginfo has %d bytes; at most %d are allowed.", len(compact), maxExtraPNGInfo)
	}
	s.extraPNGInfo = compact
	return nil
}

// validPool is how a backend may be called; its name is part of a task queue's.
var validPool = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// check looks at what can be wrong in fields that were decoded well.
func (s *submission) check(maxRun int) error {
	switch {
	case s.timeoutSeconds < 0:
		return failf(CodeInvalidRequest, "timeout_seconds is %d; it must be positive.", s.timeoutSeconds)
	case s.timeoutSeconds > maxRun:
		return failf(CodeLimitExceeded, "timeout_seconds is %d; this server allows at most %d.", s.timeoutSeconds, maxRun)
	case s.priority < 0 || s.priority > 5:
		return failf(CodeInvalidRequest, "priority is %d; it must be 1 (first) to 5 (last).", s.priority)
	case s.backend != "" && !validPool.MatchString(s.backend):
		return failf(CodeInvalidRequest, "backend: a name has 1 to 64 small letters, digits and dashes.")
	case s.gpu != "" && !comfy.ValidGPU(s.gpu):
		return failf(CodeInvalidRequest, "gpu: %q is no name of a GPU, such as H100 or A100-80GB.", shorten(s.gpu))
	}
	return checkNames(s.images)
}

func decodeValue(dec *json.Decoder, path string, dst any) error {
	err := dec.Decode(dst)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field != "" {
			path += "." + wrong.Field
		}
		return failf(CodeInvalidRequest, "%s must be %s, not %s.", path, kindName(wrong.Type.Kind().String()), shorten(wrong.Value))
	}
	if err != nil {
		return syntaxError(err)
	}
	return nil
}

func kindName(kind string) string {
	switch kind {
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	case "struct":
		return "an object"
	default:
		return "a " + kind
	}
}

// syntaxError words what encoding/json dislikes; failures of the body itself pass.
func syntaxError(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return failf(CodeInvalidRequest, "The body is not valid JSON: %s, at byte %d.", shorten(syntax.Error()), syntax.Offset)
	}
	return failf(CodeInvalidRequest, "The body is not valid JSON: it ends too early.").because(err)
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// shorten keeps a client's bytes from filling answers and logs.
func shorten(text string) string {
	if len(text) <= 80 {
		return text
	}
	return strings.ToValidUTF8(text[:80], "") + "..."
}
