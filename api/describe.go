package api

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/docker/go-units"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// Bounds of a job's details, in bytes. The Temporal UI puts them into an address, which proxies bound, too.
const (
	maxPromptShown = 500
	maxNameShown   = 80
	maxListShown   = 10
)

// summary is what a person sees of the job at the top of its page in the Temporal UI.
func summary(j *newJob, d comfy.Description) string {
	if s := d.Summary(j.sub.metadata[comfy.TitleLabel]); s != "" {
		return s
	}
	return fmt.Sprintf("%d nodes", len(j.graph.Nodes))
}

// details are the rest, as markdown: who sent it, what it is made of, where its page is. What came from the client stands
// in code spans.
func (s *Server) details(j *newJob, d comfy.Description) string {
	var lines []string
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, "- **"+name+"**: "+value)
		}
	}
	if s.opts.LinkURL != "" {
		page := strings.TrimSuffix(s.opts.LinkURL, "/") + "/jobs/" + url.PathEscape(j.id)
		add("Job", "["+page+"]("+page+")")
	}
	add("Tenant", comfy.Literal(j.tenant, maxNameShown))
	add("Prompt", comfy.Literal(d.Prompt, maxPromptShown))
	add("Model", comfy.Literal(d.Model, maxNameShown))
	if d.Width != "" {
		add("Size", d.Width+" × "+d.Height)
	}
	add("Makes", spans(d.Ends))
	add("Graph", graphSize(j))
	var files []string
	for _, in := range j.request.Images {
		files = append(files, fmt.Sprintf("%s (%s)", in.Name, units.BytesSize(float64(in.Size))))
	}
	add("Inputs", spans(files))
	add("Asked for", asked(j.sub))
	add("Labels", spans(visibility.Labels(j.sub.metadata)))
	add("Request", comfy.Literal(j.from.id, maxNameShown))
	return strings.Join(lines, "\n")
}

func graphSize(j *newJob) string {
	text := fmt.Sprintf("%d nodes, %s", len(j.graph.Nodes), units.BytesSize(float64(len(j.graph.JSON()))))
	if j.request.WorkflowRef != "" {
		text += ", in the store as " + comfy.Literal(j.request.WorkflowRef, 2*maxNameShown)
	}
	return text
}

// asked is what the submission names beside the graph.
func asked(sub *submission) string {
	var all []string
	if sub.backend != "" {
		all = append(all, "backend "+comfy.Literal(sub.backend, maxNameShown))
	}
	if sub.gpu != "" {
		all = append(all, "GPU "+comfy.Literal(sub.gpu, maxNameShown))
	}
	if sub.priority != 0 {
		all = append(all, fmt.Sprintf("priority %d", sub.priority))
	}
	if sub.timeoutSeconds != 0 {
		all = append(all, fmt.Sprintf("at most %d s", sub.timeoutSeconds))
	}
	return strings.Join(all, ", ")
}

// spans lists texts of a client, each once, and how many more there are.
func spans(texts []string) string {
	count := map[string]int{}
	for _, t := range texts {
		count[t]++
	}
	var shown []string
	for _, t := range texts {
		if count[t] == 0 {
			continue
		}
		if len(shown) == maxListShown {
			shown = append(shown, fmt.Sprintf("%d more", len(count)))
			break
		}
		text := comfy.Literal(t, maxNameShown)
		if count[t] > 1 {
			text += fmt.Sprintf(" × %d", count[t])
		}
		delete(count, t)
		shown = append(shown, text)
	}
	return strings.Join(shown, ", ")
}
