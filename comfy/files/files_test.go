package files_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/comfy/files"
)

// serve answers as comfyd does.
func serve(t *testing.T) *files.Client {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /outputs/{job}/{sum}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.PathValue("job") != "nightly-2026-11-30T03:00:00Z" {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error":"Call ID not found or invalid.","code":"not_found"}`)
			return
		}
		io.WriteString(w, "picture")
	})
	mux.HandleFunc("POST /inputs", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		if len(raw) == 0 {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "<html>a proxy")
			return
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"name":"`+r.URL.Query().Get("name")+`","ref":"inputs/a/b","size_bytes":7}`)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return &files.Client{URL: s.URL + "/", Key: "secret"}
}

func TestOpen(t *testing.T) {
	c := serve(t)
	sum := sha256.Sum256([]byte("picture"))
	out := comfy.Output{Ref: comfy.OutputPrefix("nightly-2026-11-30T03:00:00Z") + hex.EncodeToString(sum[:]), SHA256: hex.EncodeToString(sum[:])}
	read := func(out comfy.Output) (string, error) {
		r, err := c.Open(t.Context(), out)
		if err != nil {
			return "", err
		}
		defer r.Close()
		raw, err := io.ReadAll(r)
		return string(raw), err
	}
	if text, err := read(out); text != "picture" || err != nil {
		t.Fatal(text, err)
	}
	broken := out
	broken.SHA256 = strings.Repeat("0", 64)
	if _, err := read(broken); !errors.Is(err, files.ErrCorrupt) {
		t.Fatal(err)
	}
	other := out
	other.Ref = strings.Replace(out.Ref, "nightly", "weekly", 1)
	var e *files.Error
	if _, err := read(other); !errors.As(err, &e) || e.Status != http.StatusNotFound || e.Code != "not_found" {
		t.Fatal(err)
	}
	odd := out
	odd.Ref = comfy.OutputPrefix("a/b") + out.SHA256
	if _, err := read(odd); err == nil || !strings.Contains(err.Error(), "letters, digits") {
		t.Fatal(err)
	}
}

func TestUpload(t *testing.T) {
	c := serve(t)
	in, err := c.Upload(t.Context(), "my photo.png", strings.NewReader("picture"))
	if err != nil || in.Name != "my photo.png" || in.Ref != "inputs/a/b" || in.Size != 7 {
		t.Fatal(in, err)
	}
	var e *files.Error
	if _, err = c.Upload(t.Context(), "x", strings.NewReader("")); !errors.As(err, &e) || e.Status != http.StatusBadGateway || !strings.Contains(e.Message, "a proxy") {
		t.Fatal(err)
	}
}
