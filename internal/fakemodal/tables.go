package fakemodal

import (
	"encoding/base64"
	"maps"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/protobuf/proto"
)

// tables are the workspace's objects but for calls, Dicts and Queues. They are kept as one file.
type tables struct {
	Apps      map[string]*app
	Functions map[string]*function
	Classes   map[string]*class
	Images    map[string]*image
	Mounts    map[string]*mount
	Secrets   map[string]*secret
	Volumes   map[string]*volume
}

type app struct {
	ID, Name    string
	Version     int  // 0 until it has been deployed; an app of `modal run` never is
	Over        bool // its client has gone
	Created     time.Time
	Deployed    time.Time
	FunctionIDs map[string]string
	ClassIDs    map[string]string
}

// function is a deployed function, or a variant of one (Base set) with other options or parameters.
type function struct {
	ID, AppID string
	Base      string
	Params    []byte
	Options   message[*pb.FunctionOptions]
	Def       message[*pb.Function]     // for a list of GPUs the first choice
	Data      message[*pb.FunctionData] // one definition for each choice of GPU
}

type class struct{ ID, FunctionID string }

type image struct {
	ID      string
	Request message[*pb.ImageGetOrCreateRequest]
}

type mount struct {
	ID, Name string
	Files    []mountFile
}

type mountFile struct {
	Name, SHA256 string
	Mode         uint32
}

type secret struct {
	ID, Name string
	Values   map[string]string
}

type volume struct {
	ID, Name string
	Version  int32
}

// message keeps a protobuf message in JSON, in its wire form.
type message[M proto.Message] struct{ m M }

func wire[M proto.Message](m M) message[M] { return message[M]{m} }

// MarshalText implements encoding.TextMarshaler.
func (w message[M]) MarshalText() ([]byte, error) {
	raw, err := proto.Marshal(w.m)
	return []byte(base64.StdEncoding.EncodeToString(raw)), err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (w *message[M]) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return err
	}
	w.m = w.m.ProtoReflect().New().Interface().(M)
	return proto.Unmarshal(raw, w.m)
}

func newTables() *tables {
	return &tables{Apps: map[string]*app{}, Functions: map[string]*function{}, Classes: map[string]*class{}, Images: map[string]*image{},
		Mounts: map[string]*mount{}, Secrets: map[string]*secret{}, Volumes: map[string]*volume{}}
}

// save keeps the tables. s.mu is held.
func (s *Server) save() error { return s.store.put("tables", "tables", s.tables) }

// load reads what an earlier server kept, and creates the configured secrets.
func (s *Server) load() error {
	s.tables = newTables()
	if err := load(s.store, "tables", func(t *tables) { s.tables = t }); err != nil {
		return err
	}
	for name, values := range s.opts.Secrets {
		if found := find(s.tables.Secrets, func(x *secret) bool { return x.Name == name }); found != nil {
			found.Values = values
			continue
		}
		x := &secret{ID: newID("st"), Name: name, Values: values}
		s.tables.Secrets[x.ID] = x
	}
	maps.DeleteFunc(s.tables.Secrets, func(_ string, x *secret) bool { return x.Name != "" && s.opts.Secrets[x.Name] == nil })
	if err := load(s.store, "dicts", func(d *dict) { s.dicts[d.ID] = d }); err != nil {
		return err
	}
	if err := load(s.store, "queues", func(q *queue) { q.partitions = map[string]*partition{}; s.queues[q.ID] = q }); err != nil {
		return err
	}
	var open []*call
	if err := load(s.store, "calls", func(c *call) {
		s.remember(c)
		if !c.Done {
			open = append(open, c)
		}
	}); err != nil {
		return err
	}
	slices.SortFunc(open, func(a, b *call) int { return a.Created.Compare(b.Created) })
	for _, c := range open {
		s.recover(c)
	}
	return s.save()
}

// find returns one that fits, nil if there is none.
func find[T any](m map[string]*T, fits func(*T) bool) *T {
	for _, x := range m {
		if fits(x) {
			return x
		}
	}
	return nil
}
