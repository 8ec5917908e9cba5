package fakemodal

import (
	"context"
	"strings"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// builderVersion is the newest image builder that Python 1.6.4 knows (CODE: _image.py); at Modal each workspace chooses its own.
const builderVersion = "2026.10"

// ImageGetOrCreate takes every image as built: there is no build here.
func (v *service) ImageGetOrCreate(_ context.Context, r *pb.ImageGetOrCreateRequest) (*pb.ImageGetOrCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, base := range r.GetImage().GetBaseImages() {
		if _, ok := s.tables.Images[base.GetImageId()]; !ok {
			return nil, notFound("Image %s not found", base.GetImageId())
		}
	}
	im := &image{ID: newID("im"), Request: wire(r)}
	s.tables.Images[im.ID] = im
	return pb.ImageGetOrCreateResponse_builder{ImageId: im.ID, Result: built(), Metadata: im.metadata()}.Build(), s.save()
}

func built() *pb.GenericResult {
	return pb.GenericResult_builder{Status: pb.GenericResult_GENERIC_STATUS_SUCCESS}.Build()
}

func (im *image) metadata() *pb.ImageMetadata {
	version := builderVersion
	return pb.ImageMetadata_builder{ImageBuilderVersion: &version}.Build()
}

func (v *service) ImageJoinStreaming(r *pb.ImageJoinStreamingRequest, out pb.ModalClient_ImageJoinStreamingServer) error {
	v.s.mu.Lock()
	im, ok := v.s.tables.Images[r.GetImageId()]
	v.s.mu.Unlock()
	if !ok {
		return notFound("Image %s not found", r.GetImageId())
	}
	return out.Send(pb.ImageJoinStreamingResponse_builder{Result: built(), Eof: true, Metadata: im.metadata()}.Build())
}

func (v *service) ImageFromId(_ context.Context, r *pb.ImageFromIdRequest) (*pb.ImageFromIdResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	im, ok := v.s.tables.Images[r.GetImageId()]
	if !ok {
		return nil, notFound("Image %s not found", r.GetImageId())
	}
	return pb.ImageFromIdResponse_builder{ImageId: im.ID, Metadata: im.metadata()}.Build(), nil
}

// layers returns an image and those below it, the lowest first. s.mu is held.
func (s *Server) layers(id string) []*image {
	im, ok := s.tables.Images[id]
	if !ok {
		return nil
	}
	var all []*image
	for _, base := range im.Request.m.GetImage().GetBaseImages() {
		all = append(all, s.layers(base.GetImageId())...)
	}
	return append(all, im)
}

// imageEnv is what an image's ENV lines set (CODE: image.py env writes ENV KEY=shlex.quote(value)).
func (s *Server) imageEnv(id string) map[string]string {
	env := map[string]string{}
	for _, im := range s.layers(id) {
		for _, line := range im.Request.m.GetImage().GetDockerfileCommands() {
			if pair, ok := strings.CutPrefix(line, "ENV "); ok {
				if k, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok {
					env[k] = unquote(value)
				}
			}
		}
	}
	return env
}

// unquote undoes Python's shlex.quote.
func unquote(s string) string {
	var b strings.Builder
	var quote rune
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
