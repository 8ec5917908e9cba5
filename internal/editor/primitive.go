package editor

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// setPrimitive writes a primitive's value into the widgets that it is connected to.
func (c *converter) setPrimitive(in *instance) {
	if in.node.kind != primitive || c.stop() {
		return
	}
	values := list(in.node.values)
	if len(values) == 0 {
		return // the widgets have their own
	}
	if in.node.replaces {
		c.fail(in, "its property \"Run widget replace on values\" is on: switch it off, or give the value itself")
		return
	}
	for _, id := range in.in.canvas.leaving[in.node.id] {
		to := in.in.byID[in.in.canvas.links[id].to]
		if to == nil || !c.spend(len(to.inputs)) {
			continue
		}
		if i := slices.IndexFunc(to.inputs, func(s slot) bool { return s.link == id }); i >= 0 {
			c.give(in, to, to.inputs[i], values[0])
		}
	}
}

// give sets one widget, rounded as the editor rounds what is typed into it.
func (c *converter) give(from, to *instance, s slot, value json.RawMessage) {
	if to.inside != nil && (to.active() || to.in.host != nil) {
		c.fail(from, "a primitive that is connected to a subgraph cannot be converted: set the value on the subgraph's node")
		return
	}
	i := slices.IndexFunc(to.values, func(p pair) bool { return p.name == s.name })
	if i < 0 || !s.widget {
		return // a reroute, say: the editor gives it nothing
	}
	k := slices.IndexFunc(to.class.inputs, func(i *input) bool { return i.name == s.name })
	if k >= 0 {
		value = to.class.inputs[k].rounded(value)
	}
	to.values[i].value = value
}

// rounded is what the editor makes of a number that is set by a primitive.
func (in *input) rounded(value json.RawMessage) json.RawMessage {
	v := float(value)
	if v == nil || value[0] == '"' {
		return value
	}
	or := func(f *float64, def float64) float64 {
		if f == nil {
			return def
		}
		return *f
	}
	var r float64
	switch step := or(in.step, 1); in.kind {
	case "INT":
		if step == 0 {
			step = 1
		}
		offset := math.Mod(or(in.min, 0), step)
		r = math.Floor((*v-offset)/step+0.5)*step + offset
	case "FLOAT":
		precision := max(0, -math.Floor(math.Log10(or(in.step, 0.5))))
		round := or(in.round, 0)
		if round == 0 && precision > 0 {
			round = math.Pow(10, -precision)
		}
		if round == 0 || precision > 20 {
			return value
		}
		fixed, err := strconv.ParseFloat(strconv.FormatFloat(math.Floor(*v/round+0.5)*round, 'f', int(precision), 64), 64)
		if err != nil {
			return value
		}
		r = min(max(fixed, or(in.min, 0)), or(in.max, 2048))
	default:
		return value
	}
	if r == *v { // digit for digit as it was saved
		return value
	}
	text, err := json.Marshal(r)
	if err != nil { // beyond what JSON can say
		return value
	}
	return text
}
