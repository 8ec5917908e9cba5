package fakemodal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Mounts: local files that go to a container or into an image. They are kept by their SHA-256 under Dir/files.

func (v *service) MountBatchedCheckExistence(_ context.Context, r *pb.MountBatchedCheckExistenceRequest) (*pb.MountBatchedCheckExistenceResponse, error) {
	b := pb.MountBatchedCheckExistenceResponse_builder{CheckedAt: timestamppb.Now()}
	for _, sum := range r.GetSha256HexHashes() {
		if !v.s.hasFile(sum) {
			b.MissingSha256HexHashes = append(b.MissingSha256HexHashes, sum)
		}
	}
	return b.Build(), nil
}

func (v *service) MountPutFile(_ context.Context, r *pb.MountPutFileRequest) (*pb.MountPutFileResponse, error) {
	if err := v.s.putFile(r); err != nil {
		return nil, err
	}
	return pb.MountPutFileResponse_builder{Exists: v.s.hasFile(r.GetSha256Hex()), CheckedAt: timestamppb.Now()}.Build(), nil
}

func (v *service) MountGetOrCreate(_ context.Context, r *pb.MountGetOrCreateRequest) (*pb.MountGetOrCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &mount{ID: newID("mo"), Name: r.GetDeploymentName()}
	// Modal's own mounts (the client's dependencies, a standalone Python) are looked up by name: they exist, and are empty.
	if known := find(s.tables.Mounts, func(x *mount) bool { return m.Name != "" && x.Name == m.Name }); known != nil {
		m = known
	}
	for _, f := range r.GetFiles() {
		if !s.hasFile(f.GetSha256Hex()) {
			return nil, status.Errorf(codes.FailedPrecondition, "Mount file %s has not been uploaded", f.GetFilename())
		}
		m.Files = append(m.Files, mountFile{f.GetFilename(), f.GetSha256Hex(), f.GetMode()})
	}
	s.tables.Mounts[m.ID] = m
	return pb.MountGetOrCreateResponse_builder{MountId: m.ID, HandleMetadata: &pb.MountHandleMetadata{}}.Build(), s.save()
}

func (s *Server) filePath(sum string) string { return s.store.path("files", path.Base("/"+sum)) }

func (s *Server) hasFile(sum string) bool {
	_, err := os.Stat(s.filePath(sum))
	return err == nil
}

func (s *Server) putFile(r *pb.MountPutFileRequest) error {
	if !r.HasDataOneof() {
		return nil // asks whether it is there
	}
	data := r.GetData()
	if id := r.GetDataBlobId(); id != "" {
		var err error
		if data, err = os.ReadFile(s.blobPath(id)); err != nil {
			return notFound("Blob %s not found", id)
		}
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != r.GetSha256Hex() {
		return invalid("content does not match its SHA-256 %s", r.GetSha256Hex())
	}
	return os.WriteFile(s.filePath(r.GetSha256Hex()), data, 0o600)
}

// layOut writes mounted files below root, which stands for "/".
func (s *Server) layOut(root string, files []mountFile) error {
	for _, f := range files {
		name := filepath.Join(root, filepath.FromSlash(path.Clean("/"+f.Name)))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		data, err := os.ReadFile(s.filePath(f.SHA256))
		if err != nil {
			return fmt.Errorf("mount %s: %w", f.Name, err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// within says whether name lies below the folder dir.
func within(dir, name string) bool {
	return strings.HasPrefix(path.Clean(name)+"/", strings.TrimSuffix(path.Clean(dir), "/")+"/")
}
