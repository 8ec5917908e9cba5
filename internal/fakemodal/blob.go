package fakemodal

import (
	"context"
	"crypto/md5" // S3's ETag and Content-MD5
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// BlobCreate answers in both of the forms that the SDKs read: Go upload_url (CODE: blob.go), Python upload_urls (CODE:
// blob_utils.py). Multipart uploads, which Python does from 1 GiB on, are not there.
func (v *service) BlobCreate(_ context.Context, r *pb.BlobCreateRequest) (*pb.BlobCreateResponse, error) {
	if r.GetContentLength() > 1<<30 {
		return nil, invalid("fakemodal takes blobs up to 1 GiB, this one has %d bytes", r.GetContentLength())
	}
	id := newID("bl")
	url := v.s.signed(id)
	return pb.BlobCreateResponse_builder{BlobId: id, UploadUrl: &url, BlobIds: []string{id},
		UploadUrls: pb.UploadUrlList_builder{Items: []string{url}}.Build()}.Build(), nil
}

func (v *service) BlobGet(_ context.Context, r *pb.BlobGetRequest) (*pb.BlobGetResponse, error) {
	if _, err := os.Stat(v.s.blobPath(r.GetBlobId())); err != nil {
		return nil, notFound("Blob %s not found", r.GetBlobId())
	}
	return pb.BlobGetResponse_builder{DownloadUrl: v.s.signed(r.GetBlobId())}.Build(), nil
}

// signed is the address of a blob. Nobody checks the signature, which must come out nowhere.
func (s *Server) signed(id string) string { return s.blobs + "/blob/" + id + "?" + Signature }

// Signature stands in the address of every blob.
const Signature = "X-Amz-Signature=5ec2e7"

func (s *Server) blobPath(id string) string { return s.store.path("blobs", path.Base("/"+id)) }

// blob is the store behind signed URLs: PUT with the checks that S3 makes, GET and HEAD with ranges. Rules that name the
// methods "GET" and "PUT" spoil it: DATA_LOSS sends half of what was asked for, or cuts an upload off; any other code is
// a 503.
func (s *Server) blob(w http.ResponseWriter, r *http.Request) {
	name := s.blobPath(strings.TrimPrefix(r.URL.Path, "/blob/"))
	for _, f := range s.faultsFor(blobRequest+r.Method, false, false) {
		switch err := f.spoil(r.Context()); {
		case status.Code(err) == codes.DataLoss:
			if r.Method != http.MethodPut {
				http.ServeFile(&halfWriter{ResponseWriter: w}, r, name)
			}
			panic(http.ErrAbortHandler)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	switch r.Method {
	case http.MethodPut:
		sum, err := receive(name, r.Body, r.Header.Get("Content-MD5"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("ETag", `"`+sum+`"`) // Python compares it (CODE: _upload_to_s3_url)
	case http.MethodGet, http.MethodHead:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeFile(w, r, name)
	default:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// blobRequest goes before the method of a request for a blob, where rules look for RPCs.
const blobRequest = "/blob/"

// halfWriter drops the second half of a body.
type halfWriter struct {
	http.ResponseWriter
	left int64
}

func (h *halfWriter) WriteHeader(code int) {
	length, _ := strconv.ParseInt(h.Header().Get("Content-Length"), 10, 64)
	h.left = length / 2
	h.ResponseWriter.WriteHeader(code)
}

func (h *halfWriter) Write(p []byte) (int, error) {
	n, err := h.ResponseWriter.Write(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// badDigest is S3's answer to a wrong Content-MD5, which Python knows by its text (CODE: _upload_to_s3_url).
type badDigest struct{}

func (badDigest) Error() string {
	return "BadDigest: The Content-MD5 you specified did not match what we received."
}

func receive(name string, body io.Reader, want string) (sum string, err error) {
	f, err := os.CreateTemp(path.Dir(name), "upload-*.tmp")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	h := md5.New() // see above
	if _, err = io.Copy(io.MultiWriter(f, h), body); err != nil {
		return "", errors.Join(err, f.Close())
	}
	if err = f.Close(); err != nil {
		return "", err
	}
	if want != "" && want != base64.StdEncoding.EncodeToString(h.Sum(nil)) {
		err = badDigest{}
		return "", err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
