//go:build !noembedded

package embedded

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"

	"github.com/comfyd/comfyd/internal/logs"
)

func TestServerLogShape(t *testing.T) {
	r := &record{}
	l := newServerLogger(logs.New(logs.Options{Level: "debug", Format: logs.JSON, Out: r}))
	l.Debug("dropped")
	l.Info("chatter")
	log.With(l, tag.WorkflowID("job-1"), tag.WorkflowRunID("r")).Error("lost", tag.Error(errors.New("why")), tag.NewInt("level", 3))

	lines := r.lines()
	require.Len(t, lines, 2)
	var chatter, lost map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &chatter))
	require.Equal(t, "debug", chatter["level"])
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &lost))
	delete(lost, "time")
	require.Equal(t, map[string]any{
		"level": "error", "msg": "lost", "component": "temporal", "call_id": "job-1", "wf_run_id": "r", "error": "why", "temporal_level": 3.0,
	}, lost)
}

func TestServerLogNoise(t *testing.T) {
	notHealthy := tag.Error(errors.New("Frontend is not healthy yet"))
	refused := tag.Error(errors.New("dial tcp 127.0.0.1:7233: connect: connection refused"))
	other := tag.Error(errors.New("database is locked"))
	for _, tt := range []struct {
		phase phase
		level string
		msg   string
		err   tag.Tag
		shown bool
	}{
		{starting, "warn", "HTTP API port has not been set. Nexus HTTP endpoints will not be available.", nil, false},
		{starting, "error", "unexpected error", notHealthy, false},
		{running, "error", "unexpected error", notHealthy, true},
		{stopping, "error", "unexpected error", notHealthy, true},
		{starting, "warn", "network dial error", refused, false},
		{running, "warn", "network dial error", refused, true},
		{stopping, "warn", "network dial error", refused, false},
		{stopping, "error", "network dial error", refused, false},
		{stopping, "warn", "Failed to poll for task.", nil, false},
		{running, "warn", "Failed to poll for task.", nil, true},
		{starting, "warn", "slow", other, true},
		{stopping, "error", "lost", other, true},
	} {
		r := &record{}
		l := newServerLogger(logs.New(logs.Options{Level: "warn", Out: r}))
		l.enter(tt.phase)
		var tags []tag.Tag
		if tt.err != nil {
			tags = append(tags, tt.err)
		}
		if tt.level == "warn" {
			l.Warn(tt.msg, tags...)
		} else {
			l.Error(tt.msg, tags...)
		}
		require.Equal(t, tt.shown, r.lines()[0] != "", "%+v", tt)
	}
}
