package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// saved is a PNG as ComfyUI writes it, with the graph in it.
func saved(t *testing.T, size int, graph []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewGray(image.Rect(0, 0, size, size))))
	const beforeHeader = 8 + 12 + 13
	chunk := append([]byte("tEXtprompt\x00"), graph...)
	var out []byte
	out = append(out, b.Bytes()[:beforeHeader]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(chunk)-4))
	out = append(out, chunk...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
	return append(out, b.Bytes()[beforeHeader:]...)
}

func TestWrongBytesAreNoticed(t *testing.T) {
	j, other := tiny(), tiny()
	good := saved(t, 64, j.graph)
	require.NoError(t, j.check([][]byte{good}))
	require.ErrorContains(t, other.check([][]byte{good}), "another job's")
	require.ErrorContains(t, j.check(nil), "0 images in place of 1")
	require.ErrorContains(t, j.check([][]byte{good, good}), "2 images in place of 1")
	require.ErrorContains(t, j.check([][]byte{saved(t, 32, j.graph)}), "32x32")
	require.ErrorContains(t, j.check([][]byte{good[:len(good)-20]}), "image 0")
	flipped := slices.Clone(good)
	flipped[len(flipped)/2] ^= 1
	require.Error(t, j.check([][]byte{flipped}))
	var bare bytes.Buffer
	require.NoError(t, png.Encode(&bare, image.NewGray(image.Rect(0, 0, 64, 64))))
	require.ErrorContains(t, j.check([][]byte{bare.Bytes()}), "no graph")

	n := noise(2, 64)
	one := saved(t, 64, n.graph)
	require.ErrorContains(t, n.check([][]byte{one, one}), "there twice")
	require.NoError(t, n.check([][]byte{one, saved(t, 64, append(slices.Clone(n.graph), ' '))}))
}

func TestNumbers(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i))
	}
	require.EqualValues(t, 50, percentile(all, 50))
	require.EqualValues(t, 99, percentile(all, 99))
	require.EqualValues(t, 1, percentile(all[99:], 99))
	require.Equal(t, 2.0, median([]float64{9, 1, 2}))
	require.Equal(t, 1.5, median([]float64{2, 1}))
	for want, v := range map[string]float64{"0": 0, "0.123": 0.12345, "1.23": 1.234, "12.3": 12.34, "1234": 1234.4, "-5.00": -5} {
		require.Equal(t, want, figure(v))
	}
}

func TestRunsAreJoined(t *testing.T) {
	r := &results{Runs: 3, Systems: []title{{"direct", "ComfyUI, direct"}, {"comfyd", "comfyd"}, {"peer", "a peer"}}}
	for run, v := range []float64{10, 30, 20} {
		r.Samples = append(r.Samples,
			sample{Run: run, Row: "burst", System: "direct", Metric: "m", Unit: "s", Value: v},
			sample{Run: run, Row: "burst", System: "comfyd", Metric: "m", Unit: "s", Value: v * float64(run+1)})
	}
	r.Samples = append(r.Samples, sample{Row: "start", System: "comfyd", Metric: "first", Unit: "ms", Value: 5})
	r.Faults = []fault{{Row: "burst", System: "peer", What: "lost"}}
	r.conclude()
	require.Equal(t, "start", r.Lines[0].Row, "in the order of the rows")
	require.Equal(t, spread{Median: 20, Min: 10, Max: 30}, r.Lines[1].Systems["direct"])
	require.Equal(t, spread{Median: 60, Min: 10, Max: 60, Ratio: 2}, r.Lines[1].Systems["comfyd"], "the ratio is within a run")

	page := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(page, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o600))
	for range 2 {
		require.NoError(t, r.document(page))
		raw, err := os.ReadFile(page)
		require.NoError(t, err)
		require.Contains(t, string(raw), "| m, s | 20.0 [10.0 to 30.0] | 60.0 [10.0 to 60.0] x2.00 | - |\n")
		require.Contains(t, string(raw), "- run 1, burst, peer: lost\n")
		require.NotContains(t, string(raw), "old")
		require.True(t, bytes.HasPrefix(raw, []byte("before\n")) && bytes.HasSuffix(raw, []byte(tableEnds+"after\n")))
	}
	require.NoError(t, os.WriteFile(page, []byte("a page without a place"), 0o600))
	require.ErrorContains(t, r.document(page), "lacks the lines")
}

func TestChoices(t *testing.T) {
	all, err := choose("")
	require.NoError(t, err)
	require.Len(t, all, len(rows))
	some, err := choose("burst,tiny")
	require.NoError(t, err)
	require.Equal(t, []string{"burst", "tiny"}, []string{some[0].id, some[1].id})
	_, err = choose("burst,tinny")
	require.ErrorContains(t, err, fmt.Sprintf("%q", "tinny"))
	left, err := systemsWithout("production,peer")
	require.NoError(t, err)
	require.Len(t, left, 2)
	_, err = systemsWithout("direct")
	require.ErrorContains(t, err, "--without")
	_, err = sizes("1,ten")
	require.ErrorContains(t, err, "--growth")
}
