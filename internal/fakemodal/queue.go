package fakemodal

import (
	"context"
	"strconv"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits of a Queue (CODE: queue.py, "Queue limits").
const (
	maxQueueItems = 5000
	maxQueueItem  = 1 << 20
)

// queue is a modal.Queue. It outlives the server, what stands in it does not: the loss of a queue must not matter.
type queue struct {
	ID, Name   string
	partitions map[string]*partition
	serial     int
}

type partition struct {
	items []item
	ends  time.Time
}

type item struct {
	serial int
	value  []byte
}

func (v *service) QueueGetOrCreate(_ context.Context, r *pb.QueueGetOrCreateRequest) (*pb.QueueGetOrCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var q *queue
	for _, known := range s.queues {
		if r.GetDeploymentName() != "" && known.Name == r.GetDeploymentName() {
			q = known
		}
	}
	switch {
	case q == nil && r.GetObjectCreationType() == lookUp:
		return nil, notFound("Queue '%s' not found in environment '%s'", r.GetDeploymentName(), Environment)
	case q != nil && r.GetObjectCreationType() == mustNotBe:
		return nil, status.Errorf(codes.AlreadyExists, "Queue '%s' already exists", q.Name)
	case q == nil:
		q = &queue{ID: newID("qu"), Name: r.GetDeploymentName(), partitions: map[string]*partition{}}
		s.queues[q.ID] = q
		if err := s.store.put("queues", q.ID, q); err != nil {
			return nil, err
		}
	}
	return pb.QueueGetOrCreateResponse_builder{QueueId: q.ID, Metadata: pb.QueueMetadata_builder{Name: q.Name}.Build()}.Build(), nil
}

// partition finds one with s.mu held, empty when its time is over.
func (s *Server) partition(id string, key []byte) (*queue, *partition, error) {
	q, ok := s.queues[id]
	if !ok {
		return nil, nil, notFound("Queue %s not found", id)
	}
	p := q.partitions[string(key)]
	if p == nil || (!p.ends.IsZero() && time.Now().After(p.ends)) {
		p = &partition{}
		q.partitions[string(key)] = p
	}
	return q, p, nil
}

func (v *service) QueuePut(_ context.Context, r *pb.QueuePutRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	q, p, err := s.partition(r.GetQueueId(), r.GetPartitionKey())
	if err != nil {
		return nil, err
	}
	if len(p.items)+len(r.GetValues()) > maxQueueItems {
		return nil, status.Errorf(codes.ResourceExhausted, "Hit limit of %d items in partition", maxQueueItems)
	}
	for _, value := range r.GetValues() {
		if len(value) > maxQueueItem {
			return nil, invalid("Queue item of %d bytes is larger than 1 MiB", len(value))
		}
		q.serial++
		p.items = append(p.items, item{q.serial, value})
	}
	if ttl := r.GetPartitionTtlSeconds(); ttl > 0 {
		p.ends = time.Now().Add(time.Duration(ttl) * time.Second)
	}
	s.notify()
	return &empty{}, nil
}

func (v *service) QueueGet(ctx context.Context, r *pb.QueueGetRequest) (*pb.QueueGetResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var p *partition
	var err error
	until := time.Now().Add(seconds(r.GetTimeout()))
	s.await(ctx, until, func() bool {
		_, p, err = s.partition(r.GetQueueId(), r.GetPartitionKey())
		return err != nil || len(p.items) > 0
	})
	if err != nil {
		return nil, err
	}
	n := min(max(1, int(r.GetNValues())), len(p.items))
	var b pb.QueueGetResponse_builder
	for _, i := range p.items[:n] {
		b.Values = append(b.Values, i.value)
	}
	p.items = p.items[n:]
	return b.Build(), nil
}

func (v *service) QueueLen(_ context.Context, r *pb.QueueLenRequest) (*pb.QueueLenResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	q, p, err := s.partition(r.GetQueueId(), r.GetPartitionKey())
	if err != nil {
		return nil, err
	}
	n := len(p.items)
	if r.GetTotal() {
		n = 0
		for _, p := range q.partitions {
			n += len(p.items)
		}
	}
	return pb.QueueLenResponse_builder{Len: int32(n)}.Build(), nil
}

func (v *service) QueueClear(_ context.Context, r *pb.QueueClearRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := s.queues[r.GetQueueId()]
	if !ok {
		return nil, notFound("Queue %s not found", r.GetQueueId())
	}
	if r.GetAllPartitions() {
		clear(q.partitions)
	} else {
		delete(q.partitions, string(r.GetPartitionKey()))
	}
	return &empty{}, nil
}

// QueueNextItems reads without taking (CODE: queue.py iterate).
func (v *service) QueueNextItems(ctx context.Context, r *pb.QueueNextItemsRequest) (*pb.QueueNextItemsResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	last, _ := strconv.Atoi(r.GetLastEntryId())
	var b pb.QueueNextItemsResponse_builder
	var err error
	s.await(ctx, time.Now().Add(seconds(r.GetItemPollTimeout())), func() bool {
		var p *partition
		if _, p, err = s.partition(r.GetQueueId(), r.GetPartitionKey()); err != nil {
			return true
		}
		for _, i := range p.items {
			if i.serial > last {
				b.Items = append(b.Items, pb.QueueItem_builder{Value: i.value, EntryId: strconv.Itoa(i.serial)}.Build())
			}
		}
		return len(b.Items) > 0
	})
	return b.Build(), err
}

func (v *service) QueueHeartbeat(context.Context, *pb.QueueHeartbeatRequest) (*empty, error) {
	return &empty{}, nil
}
