package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/store"
)

// victimURL makes the test binary a process that is killed in the middle of a Put to the store it names.
const victimURL = "COMFYD_TEST_STORE_VICTIM"

func victim(url string) {
	s, err := store.Open(context.Background(), url)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	b, err := s.Put(context.Background(), "outputs/job/whole", io.MultiReader(strings.NewReader(strings.Repeat("x", 20<<20)),
		tell("half\n"), os.Stdin))
	fmt.Println("not killed", b, err)
}

// tell is a reader of nothing that says so when it is come to.
type tell string

func (t tell) Read([]byte) (int, error) {
	fmt.Print(string(t))
	return 0, io.EOF
}

func TestKilledInPut(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		put(t, w.Store, "outputs/job/earlier", "x")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimURL+"="+w.url)
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		defer stdin.Close()
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(stdout).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "half\n", line)
		if w.url == w.dir {
			require.NotEmpty(t, tmpFiles(t, w.dir), "the fault did not fire: nothing was being written")
			again := openStore(t, w.url)
			require.NotEmpty(t, tmpFiles(t, w.dir), "a living process's file was swept")
			require.NoError(t, again.Ping(t.Context()))
		}
		require.NoError(t, cmd.Process.Kill())
		require.ErrorContains(t, cmd.Wait(), "killed")

		require.Equal(t, []string{"outputs/job/earlier"}, list(t, w.Store, ""))
		if w.url == w.dir {
			require.NotEmpty(t, tmpFiles(t, w.dir))
			openStore(t, w.url)
			require.Empty(t, tmpFiles(t, w.dir), "a dead process's file was not swept")
		}
		put(t, w.Store, "outputs/job/whole", "after")
	})
}

// tmpFiles are the files that a folder keeps while they are written.
func tmpFiles(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, ".tmp", "*", "*"))
	require.NoError(t, err)
	return files
}

func TestReaderFails(t *testing.T) {
	broken := errors.New("the backend went away")
	each(t, func(t *testing.T, w world) {
		for _, size := range []int{0, 100, 3 << 20} {
			_, err := w.Put(t.Context(), "k", io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(broken)))
			require.ErrorIs(t, err, broken)
			var e *store.Error
			require.False(t, errors.As(err, &e), "the store takes the blame")
			_, err = w.PutHashed(t.Context(), "p/", io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(broken)))
			require.ErrorIs(t, err, broken)
		}
		require.Empty(t, list(t, w.Store, ""))
		require.Empty(t, tmpFiles(t, w.dir))
		require.Len(t, files(t, w.dir), 1)
	})
}

func TestContextEnds(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := w.Put(ctx, "k", io.MultiReader(strings.NewReader(strings.Repeat("x", 3<<20)), call(cancel), strings.NewReader("y")))
		require.ErrorIs(t, err, context.Canceled)
		requireError(t, err, true)
		require.Empty(t, list(t, w.Store, ""))
		require.Empty(t, tmpFiles(t, w.dir))
	})
}

// call is a reader of nothing that calls a function when it is come to.
type call func()

func (c call) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small disk to fill needs the right to mount one: %s", out)
	}
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", dir).Run()) })
	s, err := store.Open(t.Context(), dir)
	require.NoError(t, err)
	defer s.Close()
	put(t, s, "earlier", strings.Repeat("e", 600<<10))

	_, err = s.Put(t.Context(), "outputs/job/big", strings.NewReader(strings.Repeat("x", 2<<20)))
	requireError(t, err, true)
	require.ErrorIs(t, err, store.ErrFull)
	require.Equal(t, []string{"earlier"}, list(t, s, ""))
	require.Empty(t, tmpFiles(t, dir), "the part stays, and with it the disk is full")

	put(t, s, "outputs/job/small", strings.Repeat("s", 100<<10))
	require.NoError(t, s.Delete(t.Context(), "earlier"))
	put(t, s, "outputs/job/bigger", strings.Repeat("x", 800<<10))
}

func TestSymbolicLinksLeadNowhere(t *testing.T) {
	w := newFolder(t)
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(w.dir, "out")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(w.dir, "file")))
	for _, key := range []string{"out/secret", "file"} {
		_, err := read(t.Context(), w.Store, key, 0, -1)
		requireError(t, err, false)
		_, err = w.Stat(t.Context(), key)
		requireError(t, err, false)
	}
	_, err := w.Put(t.Context(), "out/new", strings.NewReader("x"))
	requireError(t, err, false)
	requireError(t, w.Delete(t.Context(), "out/secret"), false)
	require.Empty(t, list(t, w.Store, ""))
	put(t, w.Store, "file", "the link is replaced, not followed")
	left, err := os.ReadFile(filepath.Join(outside, "secret"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(left))
	require.Len(t, files(t, outside), 2)
}

// calls are all the methods that ask the store something.
func calls(s *store.Store) map[string]func(ctx context.Context) error {
	big := strings.Repeat("x", 2<<20)
	return map[string]func(ctx context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := s.Put(ctx, "k", strings.NewReader("x"))
			return err
		},
		"put hashed": func(ctx context.Context) error {
			_, err := s.PutHashed(ctx, "p/", strings.NewReader(big))
			return err
		},
		"open":   func(ctx context.Context) error { _, err := read(ctx, s, "k", 0, -1); return err },
		"range":  func(ctx context.Context) error { _, err := read(ctx, s, "k", 5, 5); return err },
		"stat":   func(ctx context.Context) error { _, err := s.Stat(ctx, "k"); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "k") },
		"ping":   func(ctx context.Context) error { return s.Ping(ctx) },
		"list": func(ctx context.Context) error {
			for _, err := range s.List(ctx, "p/") {
				return err
			}
			return nil
		},
	}
}

func TestServerDown(t *testing.T) {
	server := startS3(t)
	s := openStore(t, server.url(server.address))
	require.NoError(t, s.Ping(t.Context()))
	server.stop()
	requireUnreachable(t, s)
}

func TestServerSilent(t *testing.T) {
	server := startS3(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and never reads
	require.NoError(t, err)
	defer silent.Close()
	requireUnreachable(t, openStore(t, server.url(silent.Addr().String())))
}

func requireUnreachable(t *testing.T, s *store.Store) {
	var g sync.WaitGroup
	for name, do := range calls(s) {
		g.Go(func() {
			start := time.Now()
			err := do(t.Context())
			took := time.Since(start)
			t.Logf("%s, after %v: %v", name, took.Round(time.Millisecond), err)
			var e *store.Error
			assert.True(t, errors.As(err, &e) && e.Temporary, name)
			assert.ErrorIs(t, err, store.ErrUnreachable, name)
			assert.NotErrorIs(t, err, fs.ErrNotExist, name)
			assert.Less(t, took, time.Minute, name) // ten seconds, and what a busy machine adds
		})
	}
	g.Wait()
}

func TestDenied(t *testing.T) {
	server := startS3(t)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	s := openStore(t, server.url(server.address))
	for name, do := range calls(s) {
		err := do(t.Context())
		requireError(t, err, false)
		require.ErrorIs(t, err, fs.ErrPermission, name)
	}
}

func TestNoSuchBucket(t *testing.T) {
	server := startS3(t)
	s := openStore(t, strings.Replace(server.url(server.address), "s3://bkt", "s3://nope", 1))
	for _, name := range []string{"put", "put hashed", "open", "list", "ping"} {
		err := calls(s)[name](t.Context())
		requireError(t, err, false)
		require.NotErrorIs(t, err, fs.ErrNotExist, name)
		require.ErrorContains(t, err, "no such bucket", name)
	}
}

// cutter stands between a client and a server, and closes each connection after a number of bytes.
type cutter struct {
	net.Listener
	up, down atomic.Int64 // how many bytes it lets through on each connection
	cuts     atomic.Int64
}

func startCutter(t *testing.T, server string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			pipe := func(to, from net.Conn, limit int64) {
				n, _ := io.CopyN(to, from, limit)
				if n == limit {
					c.cuts.Add(1)
				}
				to.Close()
				from.Close()
			}
			go pipe(upstream, client, c.up.Load())
			go pipe(client, upstream, c.down.Load())
		}
	}()
	return c
}

func TestConnectionCut(t *testing.T) {
	server := startS3(t)
	cut := startCutter(t, server.address)
	s := openStore(t, server.url(server.address))
	big := strings.Repeat("0123456789abcdef", 20<<16) // 20 MiB
	put(t, s, "big", big)

	cut.up.Store(1 << 40)
	cut.down.Store(3 << 20)
	through := openStore(t, server.url(cut.Addr().String()))
	got, err := read(t.Context(), through, "big", 0, -1)
	requireError(t, err, true)
	require.ErrorIs(t, err, store.ErrUnreachable)
	require.Less(t, len(got), len(big))
	require.Positive(t, cut.cuts.Load(), "the fault did not fire")

	cut.cuts.Store(0)
	cut.down.Store(1 << 40)
	cut.up.Store(3 << 20) // within the first part, so that no retry gets through
	_, err = openStore(t, server.url(cut.Addr().String())).Put(t.Context(), "new", strings.NewReader(big))
	requireError(t, err, true)
	require.Positive(t, cut.cuts.Load(), "the fault did not fire")
	require.Equal(t, []string{"big"}, list(t, s, ""))
}

func TestMemoryStaysFlat(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // or what is measured is mostly the collector's patience
	size := int64(128 << 20)
	each(t, func(t *testing.T, w world) {
		var peak uint64
		done := make(chan struct{})
		stopped := make(chan struct{})
		runtime.GC()
		var start runtime.MemStats
		runtime.ReadMemStats(&start)
		go func() {
			defer close(stopped)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
				select {
				case <-done:
					return
				case <-tick.C:
				}
			}
		}()
		var puts errgroup.Group
		for range 8 {
			puts.Go(func() error {
				_, err := w.PutHashed(t.Context(), "p/", io.LimitReader(zeros{}, size))
				return err
			})
		}
		require.NoError(t, puts.Wait())
		b, err := w.PutHashed(t.Context(), "p/", io.LimitReader(zeros{}, size))
		require.NoError(t, err)
		r, err := w.Open(t.Context(), b.Key, 0, -1)
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, size, n)
		close(done)
		<-stopped
		grown := int64(peak) - int64(start.HeapInuse)
		t.Logf("%d MiB stored eight times at once, and read: the heap grew by %.1f MiB", size>>20, float64(grown)/(1<<20))
		if w.url == w.dir {
			require.Less(t, grown, int64(4<<20))
		}
		require.Less(t, grown, int64(128<<20))
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
