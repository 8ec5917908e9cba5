package api

import (
	"encoding/json"
	"strings"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

const maxMetadataBytes = 8 << 10 // of the field as it stands in the request

func (s *submission) decodeMetadata(dec *json.Decoder) error {
	var raw json.RawMessage
	if err := decodeValue(dec, "metadata", &raw); err != nil || isNull(raw) {
		return err
	}
	if len(raw) > maxMetadataBytes {
		return failf(CodeLimitExceeded, "metadata has %d bytes; at most %d are allowed.", len(raw), maxMetadataBytes)
	}
	if err := json.Unmarshal(raw, &s.metadata); err != nil {
		return failf(CodeInvalidRequest, `metadata must be an object whose values are strings: {"customer": "42"}.`)
	}
	if _, ok := s.metadata[comfy.BatchLabel]; ok {
		return failf(CodeInvalidRequest, "metadata: the label %s is a batch's own.", comfy.BatchLabel)
	}
	return checkMetadata(s.metadata)
}

func checkMetadata(metadata map[string]string) error {
	if len(metadata) > comfy.MaxLabels {
		return failf(CodeLimitExceeded, "metadata has %d entries; at most %d are allowed.", len(metadata), comfy.MaxLabels)
	}
	for k, v := range metadata {
		if k == "" || strings.ContainsRune(k, '=') {
			return failf(CodeInvalidRequest, "metadata: the key %q is empty or holds an equals sign.", k)
		}
		if strings.Contains(k+v, comfy.LabelSeparator) {
			return failf(CodeInvalidRequest, "metadata: %q holds the character %s, with which Temporal's lists tell labels apart.", shorten(k), comfy.LabelSeparator)
		}
		if n := len(k) + 1 + len(v); n > comfy.MaxLabel {
			return failf(CodeLimitExceeded, "metadata: key and value of %q have %d bytes together; at most %d are allowed.", shorten(k), n-1, comfy.MaxLabel-1)
		}
	}
	list, err := json.Marshal(visibility.Labels(metadata)) // as Temporal's SDK writes it
	if err != nil {
		return failf(CodeInternal, "metadata cannot be written.").because(err)
	}
	if len(list) > comfy.MaxLabelBytes {
		return failf(CodeLimitExceeded, `metadata: all labels, as the JSON list ["key=value"], have %d bytes; at most %d are allowed.`, len(list), comfy.MaxLabelBytes)
	}
	return nil
}
