package api

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// maxBatch is how many jobs a batch may have.
const maxBatch = 100

// place is an input of a graph.
type place struct{ node, input string }

func (p place) String() string { return p.node + "." + p.input }

// batchFields are what POST /batch takes beside what a submission does; one of them.
type batchFields struct {
	variations []map[string]json.RawMessage // by "<node>.<input>"
	seeds      int
}

func (b *batchFields) decode(dec *json.Decoder, name string) error {
	if name == "seeds" {
		return decodeValue(dec, name, &b.seeds)
	}
	tok, err := dec.Token()
	switch {
	case err != nil:
		return syntaxError(err)
	case tok == nil:
		return nil
	case tok != json.Delim('['):
		return failf(CodeInvalidRequest, `variations must be a list: [{"6.text": "a cat"}, {"6.text": "a dog"}].`)
	}
	for dec.More() {
		if len(b.variations) == maxBatch {
			return failf(CodeLimitExceeded, "variations: more than %d.", maxBatch)
		}
		v, err := decodeVariation(dec, len(b.variations))
		if err != nil {
			return err
		}
		b.variations = append(b.variations, v)
	}
	if _, err := dec.Token(); err != nil {
		return syntaxError(err)
	}
	return nil
}

// decodeVariation reads one object, and refuses a key that stands twice.
func decodeVariation(dec *json.Decoder, i int) (map[string]json.RawMessage, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, syntaxError(err)
	}
	if tok != json.Delim('{') {
		return nil, failf(CodeInvalidRequest, `variations[%d] must be an object: {"<node>.<input>": value}.`, i)
	}
	v := map[string]json.RawMessage{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, syntaxError(err)
		}
		key, _ := tok.(string)
		if v[key] != nil {
			return nil, failf(CodeInvalidRequest, "variations[%d]: %q stands twice.", i, shorten(key))
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, syntaxError(err)
		}
		v[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, syntaxError(err)
	}
	return v, nil
}

// size is how many bytes the variations have.
func (b *batchFields) size() (n int) {
	for _, v := range b.variations {
		for _, value := range v {
			n += len(value)
		}
	}
	return n
}

// jobs is how many the batch asks for.
func (b *batchFields) jobs() (int, error) {
	switch {
	case b.seeds != 0 && b.variations != nil:
		return 0, failf(CodeInvalidRequest, "Give either variations or seeds, not both.")
	case b.seeds < 0:
		return 0, failf(CodeInvalidRequest, "seeds is %d; it must be how many jobs there shall be, 1 to %d.", b.seeds, maxBatch)
	case b.seeds > maxBatch:
		return 0, failf(CodeLimitExceeded, "seeds is %d; a batch has at most %d jobs.", b.seeds, maxBatch)
	case b.seeds == 0 && len(b.variations) == 0:
		return 0, failf(CodeInvalidRequest, `A batch needs variations ([{"6.text": "a cat"}, ...]) or seeds (how many jobs).`)
	}
	return max(b.seeds, len(b.variations)), nil
}

// changes are what each job of the batch changes in the graph.
func (b *batchFields) changes(g *comfy.Graph, batchID string) ([]map[place]json.RawMessage, error) {
	if b.seeds > 0 {
		return seedChanges(g, batchID, b.seeds)
	}
	var all []map[place]json.RawMessage
	for i, v := range b.variations {
		changes := map[place]json.RawMessage{}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at, err := find(g, key)
			if err != nil {
				err.Message = ofVariation(i, err.Message)
				return nil, err
			}
			changes[at] = v[key]
		}
		all = append(all, changes)
	}
	return all, nil
}

// find reads "<node>.<input>"; IDs and names may hold dots themselves. An input that the node does not have is refused:
// ComfyUI ignores those that it does not know, and all jobs would be alike.
func find(g *comfy.Graph, key string) (place, *Error) {
	var node string
	for i, r := range key {
		n := g.Nodes[key[:i]]
		if r != '.' || n == nil {
			continue
		}
		if _, ok := n.Inputs[key[i+1:]]; ok {
			return place{key[:i], key[i+1:]}, nil
		}
		node = key[:i]
	}
	if node == "" {
		return place{}, failf(CodeInvalidRequest, `%q begins with no node of the workflow: write "<node>.<input>", such as "6.text".`, shorten(key))
	}
	return place{}, failf(CodeInvalidRequest, "%q: node %s (%s) has no such input in the workflow; it has %s.", shorten(key), shorten(node),
		shorten(g.Nodes[node].ClassType), shorten(strings.Join(slices.Sorted(maps.Keys(g.Nodes[node].Inputs)), ", ")))
}

// seedChanges gives each job other seeds, below 2^32: nodes written on NumPy take no larger ones. They come from the
// batch's ID, so that a repeated request means the same jobs.
func seedChanges(g *comfy.Graph, batchID string, jobs int) ([]map[place]json.RawMessage, error) {
	all := make([]map[place]json.RawMessage, jobs)
	for i := range all {
		all[i] = map[place]json.RawMessage{}
	}
	for id, n := range g.Nodes {
		for _, name := range []string{"seed", "noise_seed"} {
			at := place{id, name}
			if value := n.Inputs[name]; len(value) == 0 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
				continue
			}
			sum := sha256.Sum256([]byte(batchID + "\x00" + at.String()))
			first := binary.BigEndian.Uint32(sum[:])
			for i := range all {
				value, err := json.Marshal(first + uint32(i))
				if err != nil {
					return nil, err
				}
				all[i][at] = value
			}
		}
	}
	if len(all[0]) == 0 {
		return nil, failf(CodeInvalidRequest, "seeds: the workflow has no input seed or noise_seed that is a number. Name the inputs to change in variations instead.")
	}
	return all, nil
}
