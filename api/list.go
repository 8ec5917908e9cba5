package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	listTimeout = 10 * time.Second
	// maxListPages bounds what one request makes Temporal read where filters leave out most of what it finds.
	maxListPages = 10
)

// listEntry is one job as the list knows it, without opening it.
type listEntry struct {
	ID        string            `json:"id"`
	Status    comfy.State       `json:"status"`
	Code      comfy.Code        `json:"code,omitempty"`
	Backend   string            `json:"backend,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	EndedAt   *time.Time        `json:"ended_at,omitempty"`
	ExpiresAt *time.Time        `json:"expires_at,omitempty"`
	StatusURL string            `json:"status_url"`
}

type listBody struct {
	Jobs   []listEntry `json:"jobs"`
	Cursor string      `json:"cursor,omitempty"` // of the next page; none: this was the last
}

// list is GET /jobs: the tenant's own, as Temporal lists them.
func (s *Server) list(c *fiber.Ctx) error {
	f, err := readFilter(c)
	if err != nil {
		return err
	}
	tenant := about(c).tenant
	query := f.query(tenant, tenant == s.opts.DefaultTenant)
	token, err := s.signer.openCursor(tenant, query, f.cursor)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.life, listTimeout)
	defer cancel()
	body := listBody{Jobs: []listEntry{}}
	for page := 0; len(body.Jobs) < f.limit && page < maxListPages; page++ {
		found, err := s.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			PageSize: int32(f.limit - len(body.Jobs)), NextPageToken: token, Query: query,
		})
		if err != nil {
			return temporalError(err)
		}
		for _, info := range s.present(ctx, found.GetExecutions()) {
			if s.lists(info, tenant, f) {
				body.Jobs = append(body.Jobs, s.entry(c, info))
			}
		}
		if token = found.GetNextPageToken(); len(token) == 0 {
			break
		}
	}
	if len(token) > 0 {
		body.Cursor = s.signer.cursor(tenant, query, token)
	}
	return c.Status(http.StatusOK).JSON(body)
}

// lists decides about what Temporal has found. A job is whose its memo says, as in every other call: its search
// attributes may be anybody's. Labels are compared here once more, because the embedded Temporal pays no heed to case.
func (s *Server) lists(info *workflow.WorkflowExecutionInfo, tenant string, f *filter) bool {
	owner := s.opts.DefaultTenant
	switch sub, submitted, err := s.submissionOf(info); {
	case err != nil:
		owner = keyword(info, comfy.AttrTenant)
	case submitted:
		owner = sub.Tenant
	}
	if owner != tenant {
		return false
	}
	labels := keywords(info, comfy.AttrMetadata)
	for _, label := range f.metadata {
		if !slices.Contains(labels, label) {
			return false
		}
	}
	return true
}

// present leaves out the jobs that were deleted and that Temporal still lists, for up to a minute.
func (s *Server) present(ctx context.Context, all []*workflow.WorkflowExecutionInfo) []*workflow.WorkflowExecutionInfo {
	deleted := make([]bool, len(all))
	var group errgroup.Group
	group.SetLimit(statsAtOnce)
	for i, info := range all {
		if !visibility.IsOpen(info.GetStatus()) {
			group.Go(func() error {
				deleted[i] = s.isDeleted(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId())
				return nil
			})
		}
	}
	_ = group.Wait() // none fails
	var there []*workflow.WorkflowExecutionInfo
	for i, info := range all {
		if !deleted[i] {
			there = append(there, info)
		}
	}
	return there
}

func (s *Server) entry(c *fiber.Ctx, info *workflow.WorkflowExecutionInfo) listEntry {
	id := info.GetExecution().GetWorkflowId()
	e := listEntry{
		ID: id, Status: comfy.Running, Backend: keyword(info, comfy.AttrBackend),
		CreatedAt: info.GetStartTime().AsTime(), StatusURL: s.url(c, "/status/"+url.PathEscape(id)),
	}
	for _, label := range keywords(info, comfy.AttrMetadata) {
		if k, v, ok := strings.Cut(label, "="); ok {
			if e.Metadata == nil {
				e.Metadata = map[string]string{}
			}
			e.Metadata[k] = v
		}
	}
	if visibility.IsOpen(info.GetStatus()) {
		return e
	}
	ended := info.GetCloseTime().AsTime()
	expires := ended.Add(s.opts.Retention)
	e.EndedAt, e.ExpiresAt = &ended, &expires
	e.Status, e.Code = comfy.Failed, codeOf(info)
	if info.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED {
		e.Status, e.Code = comfy.Completed, ""
	}
	return e
}

// codeOf says why a job has failed, as failureOf does from the job itself.
func codeOf(info *workflow.WorkflowExecutionInfo) comfy.Code {
	switch info.GetStatus() {
	case enums.WORKFLOW_EXECUTION_STATUS_CANCELED:
		return comfy.Canceled
	case enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return comfy.Timeout
	case enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return comfy.Internal
	}
	if code := comfy.Code(keyword(info, comfy.AttrErrorCode)); knownCode(code) {
		return code
	}
	return comfy.Internal
}

// keyword reads a search attribute; empty where there is none.
func keyword(info *workflow.WorkflowExecutionInfo, name string) string {
	if all := keywords(info, name); len(all) > 0 {
		return all[0]
	}
	return ""
}

// keywords reads a search attribute of one or several values: Temporal hands out a list of one as either.
func keywords(info *workflow.WorkflowExecutionInfo, name string) []string {
	var payload *commonpb.Payload = info.GetSearchAttributes().GetIndexedFields()[name]
	if payload == nil {
		return nil
	}
	var several []string
	if converter.GetDefaultDataConverter().FromPayload(payload, &several) == nil {
		return several
	}
	var one string
	if converter.GetDefaultDataConverter().FromPayload(payload, &one) != nil || one == "" {
		return nil
	}
	return []string{one}
}
