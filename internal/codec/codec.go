// Package codec encrypts what comfyd keeps in Temporal: the inputs and results of workflows and activities, heartbeats,
// memos, summaries, messages of failures. Search attributes cannot be encrypted, because Temporal compares them.
//
// A payload is sealed as Temporal's own examples do in Go, Python, TypeScript and Java (AES-GCM, the nonce in front, the
// encoding binary/encrypted), so that whoever has the key reads it with those.
package codec

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"net/http"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
)

const (
	encoding   = "binary/encrypted"
	keyIDField = "encryption-key-id"
	// maxBody bounds a request to the codec server: Temporal hands out 4 MiB at a time, and base64 makes it longer.
	maxBody = 16 << 20
)

// Key is an AES key: 16, 24 or 32 bytes under a name that stands beside each payload.
type Key struct {
	ID     string
	Secret []byte
}

// Codec seals payloads with one key, and opens those that were sealed with any of its keys. What is not sealed passes.
type Codec struct {
	write string // the ID of the key to seal with; empty: nothing is sealed
	keys  map[string]cipher.AEAD
}

// New makes a codec that seals with the first key, or with none where plain is set.
func New(keys []Key, plain bool) (*Codec, error) {
	c := &Codec{keys: map[string]cipher.AEAD{}}
	for i, k := range keys {
		block, err := aes.NewCipher(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("payload key %q: %w", k.ID, err)
		}
		if c.keys[k.ID], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, fmt.Errorf("payload key %q: %w", k.ID, err)
		}
		if i == 0 && !plain {
			c.write = k.ID
		}
	}
	return c, nil
}

// Seals tells whether anything is encrypted.
func (c *Codec) Seals() bool { return c.write != "" }

// Encode implements [converter.PayloadCodec].
func (c *Codec) Encode(payloads []*common.Payload) ([]*common.Payload, error) {
	if !c.Seals() {
		return payloads, nil
	}
	sealed := make([]*common.Payload, len(payloads))
	for i, p := range payloads {
		raw, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encrypt a payload: %w", err)
		}
		sealed[i] = &common.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding), keyIDField: []byte(c.write)},
			Data:     c.keys[c.write].Seal(nil, nil, raw, nil),
		}
	}
	return sealed, nil
}

// Decode implements [converter.PayloadCodec].
func (c *Codec) Decode(payloads []*common.Payload) ([]*common.Payload, error) {
	opened := make([]*common.Payload, len(payloads))
	for i, p := range payloads {
		if string(p.GetMetadata()[converter.MetadataEncoding]) != encoding {
			opened[i] = p
			continue
		}
		id := string(p.GetMetadata()[keyIDField])
		key, ok := c.keys[id]
		if !ok {
			return nil, fmt.Errorf("%w: it is encrypted with the key %q, which COMFYD_PAYLOAD_KEYS does not have here", converter.ErrUnableToDecode, id)
		}
		raw, err := key.Open(nil, nil, p.GetData(), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: it is encrypted with another key than the one that COMFYD_PAYLOAD_KEYS calls %q here: %w", converter.ErrUnableToDecode, id, err)
		}
		opened[i] = &common.Payload{}
		if err := proto.Unmarshal(raw, opened[i]); err != nil {
			return nil, fmt.Errorf("%w: what was encrypted is no payload: %w", converter.ErrUnableToDecode, err)
		}
	}
	return opened, nil
}

// Converter reads and writes payloads with the codec, as JSON beneath.
func (c *Codec) Converter() converter.DataConverter { return with(c) }

func with(codec converter.PayloadCodec) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec)
}

// For makes a Temporal client use the codec for everything: for failures, too, whose messages name files and quote what a
// node was given. Their types, comfyd's codes, stay readable.
func (c *Codec) For(o client.Options) client.Options { return c.options(o, c) }

// ForWorkers is For, but a payload that cannot be opened stops a step of a workflow rather than failing it: the job waits
// for a worker that has the key. An error would be the job's end.
func (c *Codec) ForWorkers(o client.Options) client.Options { return c.options(o, waiting{c}) }

func (c *Codec) options(o client.Options, codec converter.PayloadCodec) client.Options {
	o.DataConverter = with(codec)
	o.FailureConverter = temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter: o.DataConverter, EncodeCommonAttributes: c.Seals(),
	})
	return o
}

// waiting panics where it cannot open: Temporal's SDK takes that for a fault of the worker, and lets another one try.
type waiting struct{ *Codec }

func (w waiting) Decode(payloads []*common.Payload) ([]*common.Payload, error) {
	opened, err := w.Codec.Decode(payloads)
	if err != nil {
		panic(err)
	}
	return opened, nil
}

// Handler is the codec server that the Temporal UI and the temporal command ask: POST .../decode and .../encode. It asks
// nobody who they are.
func (c *Codec) Handler() http.Handler {
	h := converter.NewPayloadCodecHTTPHandler(c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h.ServeHTTP(w, r)
	})
}
