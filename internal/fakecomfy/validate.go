package fakecomfy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// validate does what ComfyUI's validate_prompt does: an error refuses the prompt, and node errors beside outputs mean
// that only those outputs will be made. The caller holds mu.
func (s *Server) validate(graph map[string]node) (outputs []string, whole map[string]any, nodeErrors map[string]any) {
	nodeErrors = map[string]any{}
	problem := func(kind, message, details string) map[string]any {
		return map[string]any{"type": kind, "message": message, "details": details, "extra_info": map[string]any{}}
	}
	for _, id := range slices.Sorted(maps.Keys(graph)) {
		c := s.classes[graph[id].ClassType]
		if c == nil {
			return nil, problem("invalid_prompt", "Cannot execute because node "+graph[id].ClassType+" does not exist.", "Node ID '#"+id+"'"), nodeErrors
		}
		if c.output {
			outputs = append(outputs, id)
		}
	}
	if len(outputs) == 0 {
		return nil, problem("prompt_no_outputs", "Prompt has no outputs", ""), nodeErrors
	}
	var good []string
	for _, out := range outputs {
		seen, fine := map[string]bool{}, true
		var visit func(id string)
		visit = func(id string) {
			if seen[id] {
				return
			}
			seen[id] = true
			n := graph[id]
			var errs []any
			if why := s.refused[n.ClassType]; why != "" {
				errs = append(errs, s.inputError("custom_validation_failed", "Custom validation failed for node", why, "x", why))
			}
			for _, in := range s.classes[n.ClassType].inputs {
				raw, ok := n.Inputs[in.name]
				if !ok {
					errs = append(errs, s.inputError("required_input_missing", "Required input is missing", in.name, in.name, nil))
					continue
				}
				if from, _, isLink := link(raw); isLink {
					if graph[from].ClassType == "" {
						errs = append(errs, map[string]any{"type": "exception_during_validation", "message": "Exception when validating node", "details": "'" + from + "'",
							"extra_info": map[string]any{"exception_type": "KeyError", "traceback": []string{"  File \"/srv/comfyui/execution.py\", line 1044, in validate_prompt\n"}}})
						continue
					}
					visit(from)
					continue
				}
				if e := s.badValue(n, in, raw); e != nil {
					errs = append(errs, e)
				}
			}
			if len(errs) > 0 {
				fine = false
				nodeErrors[id] = map[string]any{"errors": errs, "dependent_outputs": []string{out}, "class_type": n.ClassType}
			} else if nodeErrors[id] != nil {
				fine = false
			}
		}
		visit(out)
		for id := range seen {
			if nodeErrors[id] != nil {
				fine = false
			}
		}
		if fine {
			good = append(good, out)
		}
	}
	if len(good) == 0 {
		return nil, problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", ""), nodeErrors
	}
	return good, nil, nodeErrors
}

func (s *Server) inputError(kind, message, details, name string, received any) map[string]any {
	extra := map[string]any{"input_name": name, "input_config": []any{"INT", map[string]any{"min": 1, "max": 16384}}}
	if received != nil {
		extra["received_value"] = received
		if s.nan {
			extra["received_value"] = nanToken
		}
	}
	return map[string]any{"type": kind, "message": message, "details": details, "extra_info": extra}
}

func (s *Server) badValue(n node, in input, raw json.RawMessage) map[string]any {
	var v any
	_ = json.Unmarshal(raw, &v)
	switch {
	case n.ClassType == "LoadImage":
		if s.files["input"][inputName(raw)] == nil {
			return map[string]any{"type": "custom_validation_failed", "message": "Custom validation failed for node",
				"details": fmt.Sprintf("image - Invalid image file: %v", v), "extra_info": map[string]any{"input_name": "image"}}
		}
	case in.values != nil:
		if !slices.Contains(in.values, fmt.Sprint(v)) {
			return s.inputError("value_not_in_list", "Value not in list", fmt.Sprintf("%s: '%v' not in %v", in.name, v, in.values), in.name, v)
		}
	case in.max > 0:
		f, ok := v.(float64)
		switch {
		case !ok:
			return s.inputError("invalid_input_type", "Failed to convert an input value to a INT value", fmt.Sprintf("%s, %v", in.name, v), in.name, v)
		case f < in.min:
			return s.inputError("value_smaller_than_min", fmt.Sprintf("Value %v smaller than min of %v", v, in.min), in.name, in.name, v)
		case f > in.max:
			return s.inputError("value_bigger_than_max", fmt.Sprintf("Value %v bigger than max of %v", v, in.max), in.name, in.name, v)
		}
	}
	return nil
}
