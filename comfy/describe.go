package comfy

import (
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxSummary bounds a [Description.Summary], in bytes as JSON. Temporal allows 400 for the whole payload of a summary
// (limit.userMetadataSummarySize), and encryption needs some of them.
const MaxSummary = 240

// TitleLabel is the label of a job whose value a [Description.Summary] begins with, in place of the prompt.
const TitleLabel = "title"

// BatchLabel is the label of a job that was started as one of several, by POST /batch; its value is the batch's ID.
const BatchLabel = "comfyd_batch"

// Description is what a person wants to know of a graph at a glance. Its texts are the client's own: they may hold
// anything, and [Literal] makes them fit for a page.
type Description struct {
	Prompt        string   // the positive one; empty where none is found
	Model         string   // the first checkpoint or diffusion model that is loaded
	Ends          []string // the classes of the nodes that no other node uses, in natural order
	Width, Height string   // of the first image or latent that is made from nothing
}

// Names of inputs, as the nodes of ComfyUI and of the common packs call them.
var (
	promptInputs = []string{"text", "t5xxl", "clip_l", "text_g", "positive_prompt", "prompt", "string", "value"}
	modelInputs  = []string{"ckpt_name", "unet_name", "checkpoint", "model_name"}
	// Links that never lead from a sampler to the positive prompt.
	otherLinks = []string{"negative", "model", "clip", "vae", "latent_image", "control_net", "image"}
)

// maxSteps bounds the search for the prompt.
const maxSteps = 1000

// Describe looks at a graph as a person would. It guesses, by the names of inputs, and may find nothing.
func (g *Graph) Describe() Description {
	var d Description
	ids, left, used := g.IDs(), maxSteps, map[string]bool{}
	for _, l := range g.Links() {
		used[l.From] = true
	}
	for _, id := range ids {
		n := g.Nodes[id]
		if !used[id] && len(n.links) > 0 {
			d.Ends = append(d.Ends, n.ClassType)
		}
		if d.Model == "" {
			d.Model = n.text(modelInputs)
		}
		if d.Width == "" && len(n.links) == 0 && n.number("width") != "" {
			d.Width, d.Height = n.number("width"), n.number("height")
		}
		for _, l := range n.links {
			if d.Prompt == "" && l.Input == "positive" {
				d.Prompt = g.prompt(l.From, &left)
			}
		}
	}
	for _, id := range ids {
		if d.Prompt == "" {
			d.Prompt = g.Nodes[id].text([]string{"positive_prompt", "prompt"})
		}
	}
	return d
}

// prompt follows a conditioning back to the text that it was made of.
func (g *Graph) prompt(id string, left *int) string {
	n := g.Nodes[id]
	if *left--; *left < 0 || n == nil {
		return ""
	}
	if found := n.text(promptInputs); found != "" {
		return found
	}
	for _, l := range n.links {
		if slices.Contains(otherLinks, l.Input) {
			continue
		}
		if found := g.prompt(l.From, left); found != "" {
			return found
		}
	}
	return ""
}

// text is the first of some inputs that is a text and not empty.
func (n *Node) text(inputs []string) string {
	for _, name := range inputs {
		if raw := n.Inputs[name]; len(raw) > 2 && raw[0] == '"' {
			if t := strings.TrimSpace(text(raw)); t != "" {
				return t
			}
		}
	}
	return ""
}

func (n *Node) number(input string) string {
	if raw := n.Inputs[input]; len(raw) > 0 && len(raw) < 8 && raw[0] >= '0' && raw[0] <= '9' {
		return string(raw)
	}
	return ""
}

// Summary is one line of markdown of at most [MaxSummary] bytes, for a workflow's static summary: the title or else the
// prompt, the model, and where the graph ends. A parent that starts a job as its child may give it on.
func (d Description) Summary(title string) string {
	var tail []string
	if d.Model != "" {
		tail = append(tail, Literal(modelName(d.Model), 60))
	}
	if len(d.Ends) > 0 {
		tail = append(tail, Literal(d.Ends[0], 40))
	}
	rest := strings.Join(tail, " · ")
	if title == "" {
		title = d.Prompt
	}
	head := Literal(title, MaxSummary-jsonSize(rest)-len(" · ")-len(`""`)-len("``"))
	switch {
	case head == "":
		return rest
	case rest == "":
		return head
	}
	return head + " · " + rest
}

// modelName is a model without its folder and its ending.
func modelName(file string) string {
	file = path.Base(strings.ReplaceAll(file, `\`, "/"))
	return strings.TrimSuffix(file, path.Ext(file))
}

// Literal shows any text in markdown as it is: a code span, in which nothing is a link, a tag or a heading. The text is
// cut to a number of bytes as JSON, without what ends a span or moves other text about. Empty for one that shows nothing.
func Literal(text string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '`':
			return '\''
		case r == utf8.RuneError, unicode.IsControl(r), unicode.IsSpace(r), unicode.In(r, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp):
			return ' ' // the marks that turn the direction of text are Cf
		}
		return r
	}, text[:min(len(text), 4*limit+4)])
	clean = strings.Join(strings.Fields(clean), " ")
	if jsonSize(clean) > limit {
		left := limit - len("…")
		end := strings.IndexFunc(clean, func(r rune) bool {
			left -= jsonSize(string(r))
			return left < 0
		})
		clean = strings.TrimSpace(clean[:end]) + "…"
	}
	if clean == "" {
		return ""
	}
	return "`" + clean + "`"
}

// jsonSize is how many bytes a text takes within a JSON string, as Go writes it. Asking encoding/json is not allowed in
// workflow code.
func jsonSize(text string) (n int) {
	for _, r := range text {
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t' || r == '\b' || r == '\f':
			n += 2
		case r < ' ' || r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029' || r == utf8.RuneError:
			n += 6
		default:
			n += utf8.RuneLen(r)
		}
	}
	return n
}
