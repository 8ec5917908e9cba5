package editor

import (
	"encoding/json"
	"slices"
	"strings"
)

// promote gives each input of a subgraph's node that shows a widget of its inside the value that this node has for it:
// the one saved with the node, else the one inside.
func (c *converter) promote(host *instance) {
	inside := host.inside
	host.promoted = make([]json.RawMessage, len(inside.canvas.inputs))
	var shown []int
	for i, p := range inside.canvas.inputs {
		if value, ok := c.shows(inside, p); ok {
			host.promoted[i] = value
			shown = append(shown, i)
		}
	}
	saved := list(host.node.values)
	if len(saved) == 0 || c.failedIn(host) {
		return
	}
	if len(host.node.proxies) == 0 {
		if len(saved) != len(shown) {
			c.fail(host, "it has %d saved values for the %d widgets that it shows. Open it in the editor, check them and save again", len(saved), len(shown))
			return
		}
		for k, i := range shown {
			host.set(i, saved[k])
		}
		return
	}
	for k, p := range host.node.proxies {
		if !c.spend(1 + len(host.inputs)) {
			return
		}
		if k >= len(saved) || string(saved[k]) == "null" {
			if p[0] == "-1" && k < len(saved) {
				c.fail(host, "its widget %q has no saved value. Open it in the editor, check it and save again", clip(p[1]))
			}
			continue
		}
		c.proxied(host, p, saved[k])
	}
}

// failedIn says whether something inside a subgraph is refused already, so that what it shows is not known.
func (c *converter) failedIn(host *instance) bool {
	for id := range c.faults {
		if strings.HasPrefix(id, host.id+":") {
			return true
		}
	}
	return false
}

// proxied sets a widget that a file of 2025 names in proxyWidgets.
func (c *converter) proxied(host *instance, p [2]string, value json.RawMessage) {
	if p[0] == "-1" {
		if i := slices.IndexFunc(host.inputs, func(s slot) bool { return s.name == p[1] }); i >= 0 && host.promoted[i] != nil {
			host.set(i, value)
			return
		}
	} else if in := host.inside.byID[p[0]]; in != nil && in.inside == nil {
		if i := slices.IndexFunc(in.values, func(v pair) bool { return v.name == p[1] }); i >= 0 && same(in.values[i].value, value) {
			return
		}
	}
	// Editors do not agree on what such a value is for.
	c.fail(host, "its saved value %s for the widget %q cannot be placed. Open it in the editor, check it and save again", clip(string(value)), clip(p[1]))
}

func (in *instance) set(i int, value json.RawMessage) {
	if string(value) != "null" {
		in.promoted[i] = value
	}
}

// shows finds the widget that a subgraph's input stands for: that of the first node on which one of its links ends in a
// widget.
func (c *converter) shows(s *scope, p port) (json.RawMessage, bool) {
	for _, id := range p.links {
		l, ok := s.canvas.links[id]
		in := s.byID[l.to]
		if !ok || in == nil || !c.spend(1+len(in.inputs)) {
			continue
		}
		k := slices.IndexFunc(in.inputs, func(s slot) bool { return s.link == id })
		if k < 0 {
			continue
		}
		if in.inside != nil {
			if k < len(in.promoted) && in.promoted[k] != nil {
				return in.promoted[k], true
			}
			continue
		}
		if i := slices.IndexFunc(in.values, func(v pair) bool { return v.name == in.inputs[k].name }); i >= 0 && in.inputs[k].widget {
			return in.values[i].value, true
		}
	}
	return nil, false
}
