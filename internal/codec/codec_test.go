package codec_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/proto"

	"github.com/comfyd/comfyd/internal/codec"
)

var (
	first  = codec.Key{ID: "k1", Secret: bytes.Repeat([]byte{1}, 32)}
	second = codec.Key{ID: "k2", Secret: bytes.Repeat([]byte{2}, 32)}
)

func newCodec(t *testing.T, plain bool, keys ...codec.Key) *codec.Codec {
	t.Helper()
	c, err := codec.New(keys, plain)
	require.NoError(t, err)
	return c
}

func TestRotation(t *testing.T) {
	old, both, plain, none := newCodec(t, false, first), newCodec(t, false, second, first), newCodec(t, true, first), newCodec(t, false)
	sealed, err := old.Converter().ToPayload("a secret cat")
	require.NoError(t, err)
	require.NotContains(t, sealed.String(), "cat")
	require.Equal(t, "k1", string(sealed.Metadata["encryption-key-id"]))
	again, err := old.Converter().ToPayload("a secret cat")
	require.NoError(t, err)
	require.NotEqual(t, sealed.Data, again.Data)

	for _, c := range []*codec.Codec{old, both, plain} {
		var text string
		require.NoError(t, c.Converter().FromPayload(sealed, &text))
		require.Equal(t, "a secret cat", text)
	}
	var text string
	err = none.Converter().FromPayload(sealed, &text)
	require.ErrorIs(t, err, converter.ErrUnableToDecode)
	require.ErrorContains(t, err, `"k1"`)
	err = newCodec(t, false, codec.Key{ID: "k1", Secret: second.Secret}).Converter().FromPayload(sealed, &text)
	require.ErrorIs(t, err, converter.ErrUnableToDecode)
	require.ErrorContains(t, err, "another key")

	newer, err := both.Converter().ToPayload(1)
	require.NoError(t, err)
	require.Equal(t, "k2", string(newer.Metadata["encryption-key-id"]))
	for _, c := range []*codec.Codec{plain, none} {
		require.False(t, c.Seals())
		p, err := c.Converter().ToPayload(1)
		require.NoError(t, err)
		require.Equal(t, "json/plain", string(p.Metadata["encoding"]))
		var n int
		require.NoError(t, old.Converter().FromPayload(p, &n), "what was written before is read")
		require.Equal(t, 1, n)
	}
}

// TestFormat: it is that of Temporal's examples, so that other teams need no code of ours.
func TestFormat(t *testing.T) {
	sealed, err := newCodec(t, false, first).Converter().ToPayload("a cat")
	require.NoError(t, err)
	require.Equal(t, "binary/encrypted", string(sealed.Metadata["encoding"]))
	block, err := aes.NewCipher(first.Secret)
	require.NoError(t, err)
	gcm, err := cipher.NewGCM(block)
	require.NoError(t, err)
	raw, err := gcm.Open(nil, sealed.Data[:12], sealed.Data[12:], nil)
	require.NoError(t, err)
	var p common.Payload
	require.NoError(t, proto.Unmarshal(raw, &p))
	require.Equal(t, `"a cat"`, string(p.Data))
}

func TestFailures(t *testing.T) {
	o := newCodec(t, false, first).For(client.Options{})
	f := o.FailureConverter.ErrorToFailure(errors.New("node 3 got a secret walrus"))
	require.NotContains(t, f.String(), "walrus")
	require.ErrorContains(t, o.FailureConverter.FailureToError(f), "a secret walrus")
	plain := newCodec(t, false).For(client.Options{})
	f = plain.FailureConverter.ErrorToFailure(errors.New("node 3"))
	require.Equal(t, "node 3", f.Message)
	require.EqualError(t, o.FailureConverter.FailureToError(f), "node 3")
}

func TestWorkersWaitForTheKey(t *testing.T) {
	sealed, err := newCodec(t, false, first).Converter().ToPayload(1)
	require.NoError(t, err)
	var n int
	o := newCodec(t, false).ForWorkers(client.Options{})
	require.Panics(t, func() { _ = o.DataConverter.FromPayload(sealed, &n) })
}

func TestBadKeys(t *testing.T) {
	_, err := codec.New([]codec.Key{{ID: "short", Secret: []byte("short")}}, false)
	require.ErrorContains(t, err, `"short"`)
}

func TestHandler(t *testing.T) {
	c := newCodec(t, false, first)
	server := httptest.NewServer(c.Handler())
	defer server.Close()
	remote := converter.NewRemoteDataConverter(converter.GetDefaultDataConverter(), converter.RemoteDataConverterOptions{Endpoint: server.URL})
	sealed, err := remote.ToPayload("a cat")
	require.NoError(t, err)
	require.Equal(t, "binary/encrypted", string(sealed.Metadata["encoding"]))
	var text string
	require.NoError(t, remote.FromPayload(sealed, &text))
	require.Equal(t, "a cat", text)

	answer := httptest.NewRecorder()
	c.Handler().ServeHTTP(answer, httptest.NewRequest("POST", "/decode", strings.NewReader(`{"payloads":[{"data":"`+strings.Repeat("A", 17<<20)+`"}]}`)))
	require.Equal(t, 400, answer.Code)
}
