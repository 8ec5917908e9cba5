// Package localcomfy is the Backend over a ComfyUI on this machine, whose process it owns: it installs ComfyUI where
// there is none, starts it, watches it, starts it again when it dies or hangs, and stops it with comfyd. Only when
// comfyd itself is killed does ComfyUI live on, and the next comfyd adopts it with the prompts in it.
//
// Prompts are carried by package comfyhttp.
package localcomfy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyhttp"
	"github.com/comfyd/comfyd/comfy"
)

// Options of a local ComfyUI.
type Options struct {
	// Dir holds ComfyUI (main.py). Where it is missing or empty, the official ComfyUI is installed there, in the
	// release [ComfyUIVersion], by comfy-cli. Models and custom nodes stay in it.
	Dir string
	// DataDir is comfyd's data folder. ComfyUI's input, output, temp and user folders, its log and what we remember of
	// it are in DataDir/comfyui-data.
	DataDir string
	// Python runs ComfyUI; empty means Dir/.venv/bin/python, else Dir/venv/bin/python, else python3. A ComfyUI that is
	// installed by us gets an environment of its own, made from Python.
	Python string
	// Port that ComfyUI listens on, on 127.0.0.1; 0 means a free one, which stays the same from then on.
	Port int
	// Args are more arguments for main.py. "--cpu" is added where no GPU is found, unless Args chooses a device.
	Args []string
	// Previews asks for a picture of what samplers have so far, unless Args has a "--preview-method" of its own.
	Previews bool
	// StartTimeout is how long ComfyUI may take until it answers; 0 means 10 minutes.
	StartTimeout time.Duration
	// StallTimeout is how long it may then give no answer at all before it is started anew; 0 means 10 minutes. A
	// ComfyUI that loads a large model can be silent for minutes.
	StallTimeout time.Duration
	// Log is where we write; nil for nowhere.
	Log logrus.FieldLogger
}

// Backend runs prompts on the ComfyUI that it owns. It implements [backend.Backend].
type Backend struct {
	*comfyhttp.Backend

	o       Options
	t       timing
	log     logrus.FieldLogger
	data    string
	server  string // its URL, by which comfyhttp knows it
	port    int
	lock    *flock.Flock
	recycle chan error // why ComfyUI is to be started anew
	stop    context.CancelFunc
	done    chan struct{}
	asking  sync.WaitGroup // probes while it starts

	mu      sync.Mutex
	problem error // why ComfyUI is not up; nil when it is
}

var _ backend.Backend = (*Backend)(nil)

// errStarting is the problem of a ComfyUI that has not had the time to have another one.
var errStarting = errors.New("ComfyUI is starting")

// Start returns at once; the backend becomes ready when ComfyUI answers. Until then Ready says what it waits for.
// An error means that the options cannot work, or that another comfyd has this data folder. ctx bounds the call alone.
func Start(ctx context.Context, o Options) (*Backend, error) { return start(ctx, o, defaultTiming()) }

func start(ctx context.Context, o Options, t timing) (_ *Backend, err error) {
	if o.Log == nil {
		o.Log = nobody()
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 10 * time.Minute
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = 10 * time.Minute
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if err := checkDir(o.Dir); err != nil {
		return nil, err
	}
	data, err := makeFolders(o.DataDir)
	if err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(data, "lock"))
	if locked, err := lock.TryLock(); err != nil || !locked {
		return nil, fmt.Errorf("another comfyd runs the ComfyUI of %s; stop it, or give this one another COMFYD_DATA_DIR: %w", data, errors.Join(err, errTaken))
	}
	b := &Backend{o: o, t: t, log: o.Log.WithField("backend", "local"), data: data, lock: lock, recycle: make(chan error, 1),
		done: make(chan struct{}), problem: errStarting}
	if b.port, err = b.choosePort(ctx); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	pool, err := poolName(data)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	b.server = "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port))
	b.Backend, err = comfyhttp.New(comfyhttp.Options{
		Pool:          backend.Pool{Name: pool, Kind: "local"},
		URLs:          []string{b.server},
		Remover:       b.removeFiles,
		OnStall:       b.stalled,
		Previews:      b.asksPreviews(),
		ProbeInterval: t.probe,
		Log:           o.Log,
	})
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	go b.supervise(run)
	return b, nil
}

var errTaken = errors.New("it is locked")

// checkDir refuses a folder that is neither ComfyUI's nor free for one.
func checkDir(dir string) error {
	if installed(dir) || halfInstalled(dir) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(entries) == 0) {
		return nil
	}
	if err == nil {
		err = errors.New("it has no main.py, and is not empty")
	}
	return fmt.Errorf("COMFYUI_DIR %s holds no ComfyUI, and none can be installed there: %w", dir, err)
}

// folders are ComfyUI's own ones below DataDir/comfyui-data. It empties temp at its start, and appends that name itself.
var folders = [...]string{"input", "output", "temp", "user"}

func makeFolders(dataDir string) (string, error) {
	data, err := filepath.Abs(filepath.Join(dataDir, "comfyui-data"))
	if err != nil {
		return "", err
	}
	for _, name := range folders {
		if err := os.MkdirAll(filepath.Join(data, name), 0o700); err != nil {
			return "", fmt.Errorf("making ComfyUI's folders: %w", err)
		}
	}
	return data, nil
}

// Servers reports the one server; where ComfyUI is not up, Problem says why, with the last lines of its log.
func (b *Backend) Servers() []backend.Server {
	servers := b.Backend.Servers()
	if problem := b.why(); problem != nil {
		for i := range servers {
			servers[i].Healthy, servers[i].Problem = false, problem.Error()
		}
	}
	return servers
}

// Ready is comfyhttp's, but tells what ComfyUI waits for.
func (b *Backend) Ready(ctx context.Context, p *backend.Prompt) error {
	err := b.Backend.Ready(ctx, p)
	var e *backend.Error
	if problem := b.why(); problem != nil && errors.As(err, &e) && e.Code == comfy.BackendUnavailable {
		return &backend.Error{Code: comfy.BackendUnavailable, Message: "the local ComfyUI is not ready: " + headline(problem), Cause: problem}
	}
	return err
}

// Close stops ComfyUI, and with it the prompts in it, and returns when it is gone.
func (b *Backend) Close() error {
	b.stop()
	<-b.done
	err := b.Backend.Close()
	b.asking.Wait()
	return errors.Join(err, b.lock.Unlock())
}

func (b *Backend) stalled(_ string, why error) {
	select {
	case b.recycle <- why:
	default: // it is about to be started anew
	}
}

func (b *Backend) why() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.problem
}

func (b *Backend) setProblem(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = err
}
