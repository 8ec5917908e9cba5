package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/mocks"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

// records is a store with nothing but the workers' records, each of an age.
type records struct {
	catalog.Blobs
	all map[string]catalog.Record
	age map[string]time.Duration
	now time.Time
}

func (r *records) List(context.Context, string) iter.Seq2[comfy.Blob, error] {
	return func(yield func(comfy.Blob, error) bool) {
		for key := range r.all {
			if !yield(comfy.Blob{Key: key, Modified: r.now.Add(-r.age[key])}, nil) {
				return
			}
		}
	}
}

func (r *records) Open(_ context.Context, key string, _, _ int64) (io.ReadCloser, error) {
	raw, err := json.Marshal(r.all[key])
	return io.NopCloser(bytes.NewReader(raw)), err
}

// TestRescue: the jobs of a pool are told that it is gone when it is, and only then.
func TestRescue(t *testing.T) {
	now := time.Now().Add(-3 * time.Hour) // of the store and of Temporal: our own clock does not matter
	for name, c := range map[string]struct {
		age     time.Duration // of the pool's record
		stopped bool
		polled  time.Duration // how long ago the pool's worker has asked for collections; 0: Temporal remembers none
		looks   int
		told    bool
	}{
		"it is served":                      {age: time.Second, polled: time.Second, looks: 3},
		"its worker has said good-bye":      {age: time.Hour, stopped: true, looks: 3, told: true},
		"only just":                         {age: time.Hour, stopped: true, looks: 1},
		"its worker is dead":                {age: time.Hour, polled: 2 * time.Minute, looks: 3, told: true},
		"and long dead":                     {age: time.Hour, looks: 3, told: true},
		"its worker cannot reach the store": {age: time.Hour, polled: 50 * time.Second, looks: 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := &records{now: now, all: map[string]catalog.Record{
				"workers/here/a.json":  {Pool: backend.Pool{Name: "here"}},
				"workers/there/b.json": {Pool: backend.Pool{Name: "there"}, Stopped: c.stopped},
			}, age: map[string]time.Duration{"workers/there/b.json": c.age}}
			m := &mocks.Client{}
			polls := func(queue string, ago time.Duration) {
				d := &workflowservice.DescribeTaskQueueResponse{}
				if ago > 0 {
					d.Pollers = []*taskqueuepb.PollerInfo{{LastAccessTime: timestamppb.New(now.Add(-ago))}}
				}
				m.On("DescribeTaskQueue", mock.Anything, queue, enums.TASK_QUEUE_TYPE_ACTIVITY).Return(d, nil)
			}
			polls(comfy.TaskQueue, time.Millisecond)
			polls(comfy.CollectTaskQueue("there"), c.polled)
			signals := 0
			m.On("ListWorkflow", mock.Anything, mock.Anything).Return(&workflowservice.ListWorkflowExecutionsResponse{
				Executions: []*workflowpb.WorkflowExecutionInfo{{Execution: &commonpb.WorkflowExecution{WorkflowId: "job", RunId: "run"}}},
			}, nil)
			m.On("SignalWorkflow", mock.Anything, "job", "run", comfy.SignalPoolGone, "there").Run(func(mock.Arguments) { signals++ }).Return(nil)
			log := logrus.New()
			log.SetOutput(io.Discard)
			rescuer := &rescuer{client: m, directory: catalog.NewDirectory(r, nil), own: map[string]bool{"here": true},
				goneAfter: time.Nanosecond, log: log, since: map[string]time.Time{}, told: map[string]map[string]signalled{}}
			if c.looks == 1 {
				rescuer.goneAfter = time.Hour
			}
			for range c.looks {
				require.NoError(t, rescuer.look(t.Context()))
			}
			require.Equal(t, c.told, signals > 0)
			require.LessOrEqual(t, signals, 1, "a job that stays is not told in each look")
			for run, at := range rescuer.told["there"] {
				at.again = time.Now()
				rescuer.told["there"][run] = at
				require.NoError(t, rescuer.look(t.Context()))
				require.Equal(t, 2, signals)
				require.Equal(t, 2*firstPause, rescuer.told["there"][run].pause)
			}
		})
	}
}
