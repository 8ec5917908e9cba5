package fakemodal

import (
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// Secrets and Volumes. A Volume is a folder of this host, and is mounted nowhere: a container finds it through
// [VolumesDir] in its environment. Commits and reloads are counted and do nothing, every write is seen at once.

func (v *service) SecretGetOrCreate(_ context.Context, r *pb.SecretGetOrCreateRequest) (*pb.SecretGetOrCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var x *secret
	if name := r.GetDeploymentName(); name != "" {
		x = find(s.tables.Secrets, func(x *secret) bool { return x.Name == name })
	}
	if x == nil {
		if r.GetObjectCreationType() == lookUp {
			// Text as the Python mock's (facts/modal.md 2.5), which the CLI shows.
			return nil, notFound("Secret '%s' not found in environment '%s'", r.GetDeploymentName(), Environment)
		}
		x = &secret{ID: newID("st"), Name: r.GetDeploymentName(), Values: r.GetEnvDict()}
		s.tables.Secrets[x.ID] = x
	}
	var missing []string
	for _, key := range r.GetRequiredKeys() {
		if _, ok := x.Values[key]; !ok {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		return nil, notFound("Secret '%s' is missing key(s): %s", x.Name, strings.Join(missing, ", "))
	}
	keys := make([]string, 0, len(x.Values))
	for k := range x.Values {
		keys = append(keys, k)
	}
	md := pb.SecretMetadata_builder{Name: x.Name, Keys: keys, EnvironmentName: Environment}.Build()
	return pb.SecretGetOrCreateResponse_builder{SecretId: x.ID, Metadata: md}.Build(), s.save()
}

// VolumeDir is the folder that stands for a Volume.
func (s *Server) VolumeDir(name string) string { return s.store.path("volumes", path.Base("/"+name)) }

func (x *volume) metadata() *pb.VolumeMetadata {
	return pb.VolumeMetadata_builder{Name: x.Name, Version: pb.VolumeFsVersion(x.Version)}.Build()
}

func (v *service) VolumeGetOrCreate(_ context.Context, r *pb.VolumeGetOrCreateRequest) (*pb.VolumeGetOrCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var x *volume
	if name := r.GetDeploymentName(); name != "" {
		x = find(s.tables.Volumes, func(x *volume) bool { return x.Name == name })
	}
	if x == nil {
		if r.GetObjectCreationType() == lookUp {
			return nil, notFound("Volume '%s' not found in environment '%s'", r.GetDeploymentName(), Environment)
		}
		version := r.GetVersion()
		if version == pb.VolumeFsVersion_VOLUME_FS_VERSION_UNSPECIFIED {
			version = pb.VolumeFsVersion_VOLUME_FS_VERSION_V1 // GUESS
		}
		x = &volume{ID: newID("vo"), Name: r.GetDeploymentName(), Version: int32(version)}
		if err := os.MkdirAll(s.VolumeDir(x.Name), 0o755); err != nil {
			return nil, err
		}
		s.tables.Volumes[x.ID] = x
	}
	return pb.VolumeGetOrCreateResponse_builder{VolumeId: x.ID, Version: pb.VolumeFsVersion(x.Version), Metadata: x.metadata()}.Build(), s.save()
}

// volume finds one by its ID.
func (s *Server) volume(id string) (*volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.tables.Volumes[id]
	if !ok {
		return nil, notFound("Volume %s not found", id)
	}
	return x, nil
}

func (v *service) VolumeGetById(_ context.Context, r *pb.VolumeGetByIdRequest) (*pb.VolumeGetByIdResponse, error) {
	x, err := v.s.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return pb.VolumeGetByIdResponse_builder{VolumeId: x.ID, Metadata: x.metadata()}.Build(), nil
}

func (v *service) VolumeListFiles(r *pb.VolumeListFilesRequest, out pb.ModalClient_VolumeListFilesServer) error {
	entries, err := v.s.list(r.GetVolumeId(), r.GetPath(), r.GetRecursive(), pb.VolumeFsVersion_VOLUME_FS_VERSION_V1)
	if err != nil {
		return err
	}
	return out.Send(pb.VolumeListFilesResponse_builder{Entries: entries}.Build())
}

func (v *service) VolumeListFiles2(r *pb.VolumeListFiles2Request, out pb.ModalClient_VolumeListFiles2Server) error {
	entries, err := v.s.list(r.GetVolumeId(), r.GetPath(), r.GetRecursive(), pb.VolumeFsVersion_VOLUME_FS_VERSION_V2)
	if err != nil {
		return err
	}
	return out.Send(pb.VolumeListFiles2Response_builder{Entries: entries}.Build())
}

// list names what lies in a folder of a Volume, for the RPC of one version (CODE: volume.py iterdir chooses by it).
func (s *Server) list(id, dir string, recursive bool, version pb.VolumeFsVersion) ([]*pb.FileEntry, error) {
	x, err := s.volume(id)
	if err != nil {
		return nil, err
	}
	if pb.VolumeFsVersion(x.Version) != version {
		return nil, invalid("Volume %s has another version", x.Name)
	}
	root := s.VolumeDir(x.Name)
	from := filepath.Join(root, filepath.FromSlash(path.Clean("/"+dir)))
	var entries []*pb.FileEntry
	err = filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == from {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b := pb.FileEntry_builder{Path: strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(name, root)), "/"), Type: pb.FileEntry_FILE,
			Mtime: uint64(info.ModTime().Unix()), Size: uint64(info.Size())}
		if d.IsDir() {
			b.Type, b.Size = pb.FileEntry_DIRECTORY, 0
		}
		entries = append(entries, b.Build())
		if d.IsDir() && !recursive {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, notFound("No such file or directory: %s", dir)
	}
	return entries, nil
}

func (v *service) VolumeCommit(context.Context, *pb.VolumeCommitRequest) (*pb.VolumeCommitResponse, error) {
	return &pb.VolumeCommitResponse{}, nil
}

func (v *service) VolumeReload(context.Context, *pb.VolumeReloadRequest) (*empty, error) {
	return &empty{}, nil
}
