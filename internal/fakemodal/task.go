package fakemodal

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/protobuf/proto"
)

//go:embed init.py
var initProgram []byte

// task is a container. s.mu guards it.
type task struct {
	s                           *Server
	id                          string
	pool                        *pool
	dir                         string
	started, readyAt, idleSince time.Time
	endedAt                     time.Time
	ready                       bool // it has asked for its first input
	stopping                    bool // it gets no more inputs
	preempted                   bool
	ended                       bool
	killed                      bool
	call                        *call  // that it works on, also when the call has another ending already
	taken                       *call  // that was taken from it, to run again when it has ended
	cancel                      string // the input that it is to cancel
	failed                      *pb.GenericResult
	why                         string // for people: why it ended
	exitCode                    int
	served                      int
	life                        io.Closer // its end kills the container
	process                     *os.Process
	timers                      []*time.Timer
}

// startTask starts a container. s.mu is held.
func (s *Server) startTask(p *pool) {
	t := &task{s: s, id: newID("ta"), pool: p, started: time.Now()}
	t.dir = s.store.path("containers", t.id)
	s.tasks[t.id] = t
	p.live = append(p.live, t)
	if f := s.fault(faultStart); f != nil {
		t.failed, t.why = pb.GenericResult_builder{Status: failure, Exception: f.rule.Message}.Build(), f.rule.Message
		s.wg.Go(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.taskEnded(t, 1)
		})
		return
	}
	limit := p.function(s).startupTimeout()
	t.after(limit, func() {
		if !t.ready {
			t.why = fmt.Sprintf("Container did not start within its startup timeout of %ds", int(limit.Seconds())) // text is a GUESS
			t.kill()
		}
	})
	args, env := s.containerArguments(t), s.containerEnv(t)
	files := s.files(p.function(s).Def.m)
	s.opts.Log("container %s starts for %s", t.id, p.function(s).Def.m.GetFunctionName())
	s.wg.Go(func() {
		code, err := s.runTask(t, args, env, files)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			t.why = err.Error()
		}
		if t.why == "" {
			t.why = fmt.Sprintf("Runner failed with exit code: %d", code) // DOC: a log line in InftyAI/Nebula#68
		}
		s.taskEnded(t, code)
	})
}

// runTask runs a container to its end.
func (s *Server) runTask(t *task, args *pb.ContainerArguments, env []string, files []mountFile) (int, error) {
	root := filepath.Join(t.dir, "fs", "root")
	for _, dir := range []string{root, filepath.Join(t.dir, "tmp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return -1, err
		}
	}
	raw, err := proto.Marshal(args)
	if err != nil {
		return -1, err
	}
	err = errors.Join(s.layOut(filepath.Dir(root), files), os.WriteFile(filepath.Join(t.dir, "args"), raw, 0o600),
		os.WriteFile(filepath.Join(t.dir, "init.py"), initProgram, 0o600))
	if err != nil {
		return -1, err
	}
	l, err := net.Listen("unix", s.socket(t))
	if err != nil {
		return -1, err
	}
	defer l.Close() // removes the socket
	s.wg.Go(func() { _ = s.grpc.Serve(taskListener{l, t.id}) })
	log, err := os.Create(filepath.Join(t.dir, "log"))
	if err != nil {
		return -1, err
	}
	defer log.Close() // the container's output

	cmd := exec.Command(s.opts.Python, "-I", "-S", filepath.Join(t.dir, "init.py"), s.opts.Python, "-u", "-m", "modal._container_entrypoint")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = root, env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	life, err := cmd.StdinPipe()
	if err != nil {
		return -1, err
	}
	if err := cmd.Start(); err != nil {
		return -1, err
	}
	s.mu.Lock()
	t.life, t.process = life, cmd.Process
	if s.closed || t.killed {
		_ = life.Close()
	}
	s.mu.Unlock()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return -1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

func (s *Server) socket(t *task) string { return filepath.Join(s.socks, t.id[3:15]) }

// containerArguments is what Modal's worker hands to the entrypoint (CODE: _container_entrypoint.py). s.mu is held.
func (s *Server) containerArguments(t *task) *pb.ContainerArguments {
	f := t.pool.function(s)
	def := proto.CloneOf(f.Def.m)
	b := pb.ContainerArguments_builder{TaskId: t.id, FunctionId: f.ID, AppId: f.AppID, FunctionDef: def, SerializedParams: f.Params,
		EnvironmentName: Environment, AppLayout: s.layout(s.tables.Apps[f.AppID])}
	if s.snapshots(f) {
		def.SetIsCheckpointingFunction(true)
		id := newID("cp")
		b.CheckpointId = &id
	}
	return b.Build()
}

func (s *Server) snapshots(f *function) bool {
	return s.opts.Snapshots && f.Def.m.GetCheckpointingEnabled()
}

// containerEnv is the environment of a container: the image's, the secrets', Modal's own (DOC: guide/environment_variables),
// and over them the test's. Nothing of this process's but what a process cannot do without. s.mu is held.
func (s *Server) containerEnv(t *task) []string {
	f := t.pool.function(s)
	root := filepath.Join(t.dir, "fs", "root")
	env := s.imageEnv(f.Def.m.GetImageId())
	for _, id := range f.Def.m.GetSecretIds() {
		if x, ok := s.tables.Secrets[id]; ok {
			maps.Copy(env, x.Values)
		}
	}
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env[name] = v
		}
	}
	maps.Copy(env, map[string]string{
		"MODAL_SERVER_URL": "unix://" + s.socket(t), "MODAL_CONTAINER_ARGUMENTS_PATH": filepath.Join(t.dir, "args"),
		"MODAL_TASK_ID": t.id, "MODAL_IS_REMOTE": "1", "MODAL_IMAGE_ID": f.Def.m.GetImageId(), "MODAL_ENVIRONMENT": Environment,
		"MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_FAKE", "MODAL_REGION": "fake-1", "PYTHONPATH": root, "TMPDIR": filepath.Join(t.dir, "tmp"),
	})
	if s.snapshots(f) {
		env["MODAL_ENABLE_SNAP_RESTORE"] = "1"
		env["MODAL_RESTORE_STATE_PATH"] = t.restorePath()
	}
	for k, v := range s.env {
		env[k] = strings.NewReplacer(ContainerDir, t.dir, VolumesDir, s.store.path("volumes")).Replace(v)
	}
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	return list
}

func (t *task) restorePath() string { return filepath.Join(t.dir, "restore-state.json") }

func (t *task) restore() error {
	tmp := t.restorePath() + ".tmp"
	if err := os.WriteFile(tmp, []byte(`{"task_id":"`+t.id+`"}`), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, t.restorePath())
}

// idle notes that it has nothing to do.
func (t *task) idle() {
	t.call, t.idleSince = nil, time.Now()
}

// stop lets it end after what it runs.
func (t *task) stop(why string) {
	if !t.stopping {
		t.stopping, t.why = true, why
	}
}

// interrupt is the notice that a container gets before it is taken away.
func (t *task) interrupt() {
	if t.process != nil {
		_ = t.process.Signal(os.Interrupt)
	}
}

// kill ends all of its processes now.
func (t *task) kill() {
	t.killed = true
	if t.life != nil {
		_ = t.life.Close()
	}
}

// after calls do with s.mu held, unless it has ended by then.
func (t *task) after(d time.Duration, do func()) {
	t.timers = append(t.timers, time.AfterFunc(d, func() {
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		if !t.ended {
			do()
		}
	}))
}

func (t *task) stopTimers() {
	for _, timer := range t.timers {
		timer.Stop()
	}
}
