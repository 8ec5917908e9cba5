package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

const (
	maxName = 200 // bytes
	// reserved is the folder of ComfyUI's inputs where backends keep files by content.
	reserved = "comfyd"
)

// nameProblem returns why a file cannot be called so, empty where it can. A name is what the graph calls the file,
// relative to ComfyUI's input folder: "photo.png" or "folder/photo.png".
func nameProblem(name string) string {
	switch {
	case name == "":
		return "is missing"
	case len(name) > maxName:
		return "is longer than 200 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
		return "holds control characters or is not UTF-8"
	case strings.Contains(name, `\`):
		return "holds a backslash; use / between folders"
	case path.IsAbs(name), path.Clean(name) != name, name == ".", name == "..", strings.HasPrefix(name, "../"):
		return `must be a plain relative path such as "photo.png" or "folder/photo.png"`
	case name == reserved || strings.HasPrefix(name, reserved+"/"):
		return "lies in the folder comfyd, which comfyd uses itself"
	}
	// ComfyUI reads "x.png [output]" as the file x.png in another folder (folder_paths.annotated_filepath).
	for _, annotation := range []string{"[input]", "[output]", "[temp]"} {
		if strings.HasSuffix(name, annotation) {
			return "ends in " + annotation + ", which ComfyUI takes for a folder"
		}
	}
	return ""
}

// checkNames also refuses two files of one name, and a file whose name is another one's folder.
func checkNames(images []imageField) error {
	seen := map[string]bool{}
	for i, img := range images {
		if problem := nameProblem(img.Name); problem != "" {
			return failf(CodeInvalidInput, "images[%d].name %s.", i, problem)
		}
		if seen[img.Name] {
			return failf(CodeInvalidInput, "images[%d].name: two files are called %q.", i, img.Name)
		}
		seen[img.Name] = true
	}
	for i, img := range images {
		for dir := path.Dir(img.Name); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return failf(CodeInvalidInput, "images[%d].name: %q is both a file and a folder.", i, dir)
			}
		}
	}
	return nil
}

// storeImages moves the files of a submission to the store, so that it holds them no more. Those that it names by URL are left
// to fetchImages: until then the URL stands in place of a ref, which is what a repeated request is known by.
func (s *Server) storeImages(ctx context.Context, tenant string, images []imageField) ([]comfy.Input, error) {
	inputs := make([]comfy.Input, 0, len(images))
	for i, img := range images {
		input, err := s.storeImage(ctx, tenant, img)
		if err != nil {
			return nil, ofImage(i, img.Name, err)
		}
		if input.SHA256 != "" {
			images[i].Image = ""
		}
		inputs = append(inputs, input)
	}
	return inputs, nil
}

// ofImage says in an error of the client's which file it is about.
func ofImage(i int, name string, err error) error {
	var own *Error
	if errors.As(err, &own) && own.Code.Status() < 500 {
		own.Message = fmt.Sprintf("images[%d] (%s): %s", i, name, own.Message)
	}
	return err
}

func (s *Server) storeImage(ctx context.Context, tenant string, img imageField) (comfy.Input, error) {
	switch {
	case img.Ref != "" && img.Image != "":
		return comfy.Input{}, failf(CodeInvalidRequest, "Give either image or ref, not both.")
	case img.Ref != "":
		return s.ownInput(ctx, tenant, img.Name, img.Ref)
	case img.Image == "":
		return comfy.Input{}, failf(CodeInvalidRequest, "The file is missing: give image (base64, a data URI or an https URL), or ref (from POST /inputs).")
	case img.url() != "":
		standIn, err := s.checkURL(img.url())
		return comfy.Input{Name: img.Name, Ref: standIn}, err
	}
	r, err := decodeImage(img.Image)
	if err != nil {
		return comfy.Input{}, err
	}
	return s.storeInput(ctx, tenant, img.Name, r)
}

// ownInput finds a file that this tenant uploaded before. Another tenant's is missing like one that never was.
func (s *Server) ownInput(ctx context.Context, tenant, name, ref string) (comfy.Input, error) {
	missing := failf(CodeInvalidInput, "There is no uploaded file with this ref. Upload it with POST /inputs.")
	sum, ok := strings.CutPrefix(ref, comfy.InputPrefix(tenant))
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != 32 || strings.ToLower(sum) != sum {
		return comfy.Input{}, missing
	}
	// Somebody may be about to remove it: from here on it is seen to be in use.
	err := s.store.Touch(ctx, ref)
	var blob comfy.Blob
	if err == nil {
		blob, err = s.store.Stat(ctx, ref)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return comfy.Input{}, missing
	}
	if err != nil {
		return comfy.Input{}, storeError(err)
	}
	return comfy.Input{Name: name, Ref: ref, SHA256: sum, Size: blob.Size}, nil
}

// storeInput keeps a file by its content. Of the file itself only its first bytes are looked at, by checkPicture and the
// checks that are given, and its frames are counted: what ComfyUI can read, ComfyUI decides.
func (s *Server) storeInput(ctx context.Context, tenant, name string, r io.Reader, checks ...func(head []byte) error) (comfy.Input, error) {
	watched := &watchedReader{r: r}
	head, err := io.ReadAll(io.LimitReader(watched, headSize))
	if err != nil {
		return comfy.Input{}, watched.err
	}
	for _, check := range append(checks, checkPicture) {
		if err := check(head); err != nil {
			return comfy.Input{}, err
		}
	}
	watched.r = io.TeeReader(io.MultiReader(bytes.NewReader(head), watched.r), newFrames())
	blob, err := s.store.PutHashed(ctx, comfy.InputPrefix(tenant), watched)
	if watched.err != nil {
		return comfy.Input{}, watched.err
	}
	if err != nil {
		return comfy.Input{}, storeError(err)
	}
	return comfy.Input{Name: name, Ref: blob.Key, SHA256: path.Base(blob.Key), Size: blob.Size}, nil
}

// watchedReader remembers why reading failed, since the store wraps it in words of its own, and refuses an empty file
// before the store keeps it.
type watchedReader struct {
	r    io.Reader
	some bool
	err  error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.some = w.some || n > 0
	if err == io.EOF && !w.some {
		err = failf(CodeInvalidInput, "The file is empty.")
	}
	if err != nil && err != io.EOF {
		var own *Error
		if !errors.As(err, &own) {
			err = failf(CodeInvalidInput, "The file could not be read to its end.").because(err)
		}
		w.err = err
	}
	return n, err
}

// decodeImage reads a file from base64 in either alphabet, padded or not, with or without line breaks, or from a data
// URI of it.
func decodeImage(text string) (io.Reader, error) {
	text = strings.TrimSpace(text)
	if len(text) >= 5 && strings.EqualFold(text[:5], "data:") {
		head, data, ok := strings.Cut(text, ",")
		if !ok || !strings.HasSuffix(strings.ToLower(head), ";base64") {
			return nil, failf(CodeInvalidInput, "The data URI must hold base64: data:image/png;base64,....")
		}
		text = data
	}
	return &base64Image{decoder: base64.NewDecoder(base64.RawStdEncoding, &base64Text{text: text})}, nil
}

type base64Image struct{ decoder io.Reader }

func (b *base64Image) Read(p []byte) (int, error) {
	n, err := b.decoder.Read(p)
	if err != nil && err != io.EOF {
		return n, failf(CodeInvalidInput, "The file is not valid base64.").because(err)
	}
	return n, err
}

// base64Text hands on base64 in the standard alphabet, without white space and padding.
type base64Text struct {
	text   string
	padded bool
}

var errPadding = errors.New("something follows the padding")

func (b *base64Text) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && len(b.text) > 0 {
		char := b.text[0]
		b.text = b.text[1:]
		switch char {
		case ' ', '\t', '\r', '\n':
			continue
		case '=':
			b.padded = true
			continue
		case '-':
			char = '+'
		case '_':
			char = '/'
		}
		if b.padded {
			return n, errPadding
		}
		p[n] = char
		n++
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
