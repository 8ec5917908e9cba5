package editor

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxChoices bounds how deep the choices of a dynamic prompt may stand in one another.
const maxChoices = 50

// prompted is what the editor makes of a widget's value when the workflow is run.
func (c *converter) prompted(in *instance, p pair) json.RawMessage {
	k := slices.IndexFunc(in.class.inputs, func(i *input) bool { return i.name == p.name })
	if k < 0 {
		return p.value
	}
	i := in.class.inputs[k]
	if i.kind != "STRING" {
		return p.value
	}
	if string(p.value) == "null" && i.multiline {
		return json.RawMessage(`""`)
	}
	if len(p.value) == 0 || p.value[0] != '"' {
		return p.value
	}
	text := word(p.value)
	shown := text
	if i.multiline { // a text box of the browser
		shown = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	}
	if i.prompt && strings.ContainsAny(shown, `\{}|/`) {
		var ok bool
		if shown, ok = c.choose(shown, 0); !ok && !c.stop() {
			c.fail(in, "the choices {one|two} in its input %q stand more than %d deep in one another", clip(p.name), maxChoices)
		}
	}
	if shown == text {
		return p.value // with the escapes that it had
	}
	return json.RawMessage(quote(shown))
}

// uncommented leaves out /* ... */ and // ... to the end of the line. A comment that nobody closes is none; it is looked for
// once, since a pattern would look to the end of the text for each.
func uncommented(text string) string {
	var b strings.Builder
	closed := true
	for {
		i := strings.IndexByte(text, '/')
		if i < 0 || i+1 == len(text) {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		text = text[i:]
		end := 0
		switch {
		case text[1] == '*' && closed:
			n := strings.Index(text[2:], "*/")
			if closed = n >= 0; closed {
				end = n + 4
			}
		case text[1] == '/':
			if end = strings.IndexAny(text, "\n\r\u2028\u2029"); end < 0 {
				end = len(text)
			}
		}
		if end == 0 {
			b.WriteByte('/')
			end = 1
		}
		text = text[end:]
	}
}

var escaped = regexp.MustCompile(`\\([{}|])`)

// choose resolves a dynamic prompt: comments go, and of {one|two} one stays.
func (c *converter) choose(text string, depth int) (string, bool) {
	if depth > maxChoices || !c.spend(len(text)/32) {
		return text, false
	}
	text = uncommented(text)
	var b strings.Builder
	for i := 0; i < len(text); {
		switch text[i] {
		case '\\':
			n := copyEscape(&b, text[i:])
			i += n
		case '{':
			options, n := choices(text[i+1:])
			i += 1 + n
			chosen, ok := c.choose(options[c.options.Pick(len(options))], depth+1)
			if !ok {
				return text, false
			}
			b.WriteString(chosen)
		default:
			b.WriteByte(text[i])
			i++
		}
	}
	return escaped.ReplaceAllString(b.String(), "$1"), true
}

// choices splits what stands behind an opening brace, up to its closing one, and returns how much that is.
func choices(text string) (options []string, n int) {
	var b strings.Builder
	for depth := 0; n < len(text); {
		switch ch := text[n]; {
		case ch == '\\':
			n += copyEscape(&b, text[n:])
			continue
		case ch == '{':
			depth++
		case ch == '}' && depth == 0:
			return append(options, b.String()), n + 1
		case ch == '}':
			depth--
		case ch == '|' && depth == 0:
			options = append(options, b.String())
			b.Reset()
			n++
			continue
		}
		b.WriteByte(text[n])
		n++
	}
	return append(options, b.String()), n
}

// copyEscape copies a backslash with what follows. At the end of the text the editor writes JavaScript's "undefined".
func copyEscape(b *strings.Builder, text string) int {
	if len(text) == 1 {
		b.WriteString(`\undefined`)
		return 1
	}
	b.WriteString(text[:2])
	return 2
}

// savers are the classes in whose file names the editor replaces %...%.
var savers = []string{"SaveImage", "SaveVideo", "SaveAnimatedWEBP", "SaveWEBM", "SaveAudio", "SaveGLB", "SaveAnimatedPNG", "CLIPSave",
	"VAESave", "ModelSave", "LoraSave", "SaveLatent"}

var pattern = regexp.MustCompile(`%([^%]+)%`)

// replaceTexts resolves %date:yyyy-MM-dd% and %Node.widget% in names of files.
func (c *converter) replaceTexts() {
	var shown []func()
	for _, in := range c.all {
		if !in.runs() || !slices.Contains(savers, in.class.Name) || c.stop() {
			continue
		}
		for i, p := range in.values {
			if p.name != "filename_prefix" || len(p.value) == 0 || p.value[0] != '"' || !strings.Contains(string(p.value), "%") {
				continue
			}
			text := word(p.value)
			if now := pattern.ReplaceAllStringFunc(text, func(match string) string { return c.replacement(in, match) }); now != text {
				shown = append(shown, func() { in.values[i].value = json.RawMessage(quote(now)) })
			}
		}
	}
	for _, set := range shown { // at last: a name may quote another one
		set()
	}
}

// unfit are the characters that a file name must not have.
var unfit = regexp.MustCompile(`[/?<>\\:*|"\x00-\x1F\x7F]`)

func (c *converter) replacement(in *instance, match string) string {
	text := match[1 : len(match)-1]
	name, widget, dotted := strings.Cut(text, ".")
	if !c.spend(len(c.all)) {
		return match
	}
	if !dotted || strings.Contains(widget, ".") {
		if layout, ok := strings.CutPrefix(name, "date:"); ok && !dotted {
			return date(layout, c.options.Now)
		}
		return match
	}
	nodes := c.find(func(in *instance) bool { return in.alias() == name })
	if len(nodes) == 0 {
		nodes = c.find(func(in *instance) bool { return in.title() == name })
	}
	if len(nodes) == 0 {
		return match
	}
	value, ok := nodes[0].value(widget)
	for _, n := range nodes { // the editor takes the first; inside subgraphs its order is not that of the file
		if v, has := n.value(widget); n.inside != nil || n.in.host != nil && (has != ok || !same(v, value)) {
			c.fail(in, "%s in its filename_prefix may mean several nodes: give them titles of their own", clip(match))
			return match
		}
	}
	if !ok {
		return match
	}
	if len(value) > 0 && (value[0] == '[' || value[0] == '{') {
		c.fail(in, "%s in its filename_prefix is no text and no number", clip(match))
		return match
	}
	shown := word(value)
	if f := float(value); f != nil && value[0] != '"' {
		if number, err := json.Marshal(*f); err == nil { // as JavaScript writes it
			shown = string(number)
		}
	}
	return unfit.ReplaceAllString(shown, "_")
}

// alias is the name by which file names call a node before its title; it was saved with the node, or is its class.
func (in *instance) alias() string {
	if in.node.alias == "" && in.class != nil && !slices.Contains(savers, in.class.Name) {
		return in.class.Name
	}
	return in.node.alias
}

func (in *instance) value(widget string) (json.RawMessage, bool) {
	i := slices.IndexFunc(in.values, func(p pair) bool { return p.name == widget })
	if i < 0 {
		return nil, false
	}
	return in.values[i].value, true
}

// find lists the nodes that file names may mean.
func (c *converter) find(is func(*instance) bool) (nodes []*instance) {
	for _, in := range c.all {
		if is(in) {
			nodes = append(nodes, in)
		}
	}
	return nodes
}

var dateParts = regexp.MustCompile(`dd?|MM?|hh?|mm?|ss?|yyy?y?`)

// date writes a time by the editor's layout.
func date(layout string, now time.Time) string {
	return dateParts.ReplaceAllStringFunc(layout, func(part string) string {
		var n int
		switch part[0] {
		case 'd':
			n = now.Day()
		case 'M':
			n = int(now.Month())
		case 'h':
			n = now.Hour()
		case 'm':
			n = now.Minute()
		case 's':
			n = now.Second()
		default:
			year := strconv.Itoa(now.Year())
			switch part {
			case "yy":
				return year[2:]
			case "yyyy":
				return year
			}
			return part
		}
		s := strconv.Itoa(n)
		if len(part) > len(s) {
			s = "0" + s
		}
		return s
	})
}
