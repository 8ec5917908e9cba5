package fakemodal

import (
	"context"
	"encoding/hex"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// dict is a modal.Dict: bytes to bytes, both pickled by the client; the keys in hex. It outlives the server.
type dict struct {
	ID, Name string
	Values   map[string][]byte
}

const (
	lookUp     = pb.ObjectCreationType_OBJECT_CREATION_TYPE_UNSPECIFIED
	ephemeral  = pb.ObjectCreationType_OBJECT_CREATION_TYPE_EPHEMERAL
	mustNotBe  = pb.ObjectCreationType_OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS
	newOfAnApp = pb.ObjectCreationType_OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP
)

func (v *service) DictGetOrCreate(_ context.Context, r *pb.DictGetOrCreateRequest) (*pb.DictGetOrCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var d *dict
	for _, known := range s.dicts {
		if r.GetDeploymentName() != "" && known.Name == r.GetDeploymentName() {
			d = known
		}
	}
	switch {
	case d == nil && r.GetObjectCreationType() == lookUp:
		return nil, notFound("Dict '%s' not found in environment '%s'", r.GetDeploymentName(), Environment)
	case d != nil && r.GetObjectCreationType() == mustNotBe:
		return nil, status.Errorf(codes.AlreadyExists, "Dict '%s' already exists", d.Name)
	case d == nil:
		d = &dict{ID: newID("di"), Name: r.GetDeploymentName(), Values: map[string][]byte{}}
		for _, e := range r.GetData() {
			d.Values[hex.EncodeToString(e.GetKey())] = e.GetValue()
		}
		s.dicts[d.ID] = d
		if err := s.store.put("dicts", d.ID, d); err != nil {
			return nil, err
		}
	}
	return pb.DictGetOrCreateResponse_builder{DictId: d.ID, Metadata: d.metadata()}.Build(), nil
}

func (d *dict) metadata() *pb.DictMetadata { return pb.DictMetadata_builder{Name: d.Name}.Build() }

// dict finds one and calls use with s.mu held; when use says that it has changed something, that is kept.
func (s *Server) dict(id string, use func(*dict) (changed bool)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.dicts[id]
	if !ok {
		return notFound("Dict %s not found", id)
	}
	if !use(d) {
		return nil
	}
	s.notify()
	return s.store.put("dicts", id, d)
}

func (v *service) DictGetById(_ context.Context, r *pb.DictGetByIdRequest) (*pb.DictGetByIdResponse, error) {
	b := pb.DictGetByIdResponse_builder{DictId: r.GetDictId()}
	err := v.s.dict(r.GetDictId(), func(d *dict) bool { b.Metadata = d.metadata(); return false })
	return b.Build(), err
}

func (v *service) DictGet(_ context.Context, r *pb.DictGetRequest) (*pb.DictGetResponse, error) {
	var b pb.DictGetResponse_builder
	err := v.s.dict(r.GetDictId(), func(d *dict) bool { b.Value, b.Found = d.Values[hex.EncodeToString(r.GetKey())]; return false })
	return b.Build(), err
}

func (v *service) DictContains(_ context.Context, r *pb.DictContainsRequest) (*pb.DictContainsResponse, error) {
	var b pb.DictContainsResponse_builder
	err := v.s.dict(r.GetDictId(), func(d *dict) bool { _, b.Found = d.Values[hex.EncodeToString(r.GetKey())]; return false })
	return b.Build(), err
}

func (v *service) DictLen(_ context.Context, r *pb.DictLenRequest) (*pb.DictLenResponse, error) {
	var b pb.DictLenResponse_builder
	err := v.s.dict(r.GetDictId(), func(d *dict) bool { b.Len = int32(len(d.Values)); return false })
	return b.Build(), err
}

func (v *service) DictPop(_ context.Context, r *pb.DictPopRequest) (*pb.DictPopResponse, error) {
	var b pb.DictPopResponse_builder
	err := v.s.dict(r.GetDictId(), func(d *dict) bool {
		b.Value, b.Found = d.Values[hex.EncodeToString(r.GetKey())]
		delete(d.Values, hex.EncodeToString(r.GetKey()))
		return b.Found
	})
	return b.Build(), err
}

func (v *service) DictUpdate(_ context.Context, r *pb.DictUpdateRequest) (*pb.DictUpdateResponse, error) {
	var b pb.DictUpdateResponse_builder
	err := v.s.dict(r.GetDictId(), func(d *dict) bool {
		for _, e := range r.GetUpdates() {
			if _, there := d.Values[hex.EncodeToString(e.GetKey())]; there && r.GetIfNotExists() {
				continue
			}
			d.Values[hex.EncodeToString(e.GetKey())] = e.GetValue()
			b.Created = true
		}
		return b.Created
	})
	return b.Build(), err
}

func (v *service) DictContents(r *pb.DictContentsRequest, out pb.ModalClient_DictContentsServer) error {
	var entries []*pb.DictEntry
	if err := v.s.dict(r.GetDictId(), func(d *dict) bool {
		for k, value := range d.Values {
			b := pb.DictEntry_builder{}
			if r.GetKeys() {
				b.Key, _ = hex.DecodeString(k)
			}
			if r.GetValues() {
				b.Value = value
			}
			entries = append(entries, b.Build())
		}
		return false
	}); err != nil {
		return err
	}
	for _, e := range entries {
		if err := out.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func (v *service) DictHeartbeat(context.Context, *pb.DictHeartbeatRequest) (*empty, error) {
	return &empty{}, nil
}
