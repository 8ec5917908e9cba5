package fakemodal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// Deployment is what a `modal deploy` has asked for.
type Deployment struct {
	App     string
	Version int
	// Functions by tag: "catalog" for a function, "ComfyUI.*" for a class.
	Functions map[string]FunctionSpec
	// Output is what the command printed. Only Deploy sets it.
	Output string
}

// FunctionSpec is a function, or the methods of a class, as deployed.
type FunctionSpec struct {
	ID                    string
	Methods               []string // of a class, sorted
	GPUs                  []string // in the order of choice: "L40S", "A100-80GB", "H100:2"; none without a GPU
	CPU                   float64  // cores
	MemoryMiB             int
	Timeout               time.Duration
	StartupTimeout        time.Duration
	ScaledownWindow       time.Duration
	MinContainers         int
	MaxContainers         int
	Retries               int
	Regions               []string
	Secrets               []string          // names
	Volumes               map[string]string // name by mount path
	MemorySnapshot        bool
	GPUSnapshot           bool
	SingleUse, Concurrent bool
	Files                 []string // local files that a container sees, by their path in it; sorted
	Layers                []Layer  // of the image, the lowest first
	Proto                 *pb.Function
}

// Layer is one step of an image's build.
type Layer struct {
	Lines         []string // Dockerfile commands
	Secrets       []string // names of those that the step sees
	Volumes       map[string]string
	GPU           string
	BuildFunction string            // the definition of a run_function step
	BuildArgs     []byte            // and its arguments, (args, kwargs) as Python pickles them
	ContextFiles  map[string]string // by name
	Mounted       []string          // local files that the step copies
	ForceBuild    bool
}

// Lines returns all Dockerfile commands of the image, the lowest layer's first.
func (f FunctionSpec) Lines() []string {
	var all []string
	for _, l := range f.Layers {
		all = append(all, l.Lines...)
	}
	return all
}

// Deploy runs `modal deploy` on the app file, as a user would, and returns what it asked for. Its error holds what the
// command printed.
func (s *Server) Deploy(ctx context.Context) (*Deployment, error) {
	if s.opts.Python == "" || s.opts.AppFile == "" {
		return nil, errors.New("fakemodal: Deploy needs Options.Python and Options.AppFile")
	}
	file, err := filepath.Abs(s.opts.AppFile)
	if err != nil {
		return nil, fmt.Errorf("fakemodal: %w", err)
	}
	before := s.Count("AppPublish")
	cmd := exec.CommandContext(ctx, s.opts.Python, "-m", "modal", "deploy", file)
	cmd.Dir = filepath.Dir(filepath.Dir(file))
	cmd.Env = os.Environ()
	for _, env := range []map[string]string{s.Env(), {"NO_COLOR": "1", "COLUMNS": "400"}, s.opts.DeployEnv} {
		for k, v := range env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("fakemodal: modal deploy: %w\n%s", err, out)
	}
	published := s.Requests("AppPublish")
	if len(published) <= before {
		return nil, fmt.Errorf("fakemodal: modal deploy has published nothing\n%s", out)
	}
	d := s.Deployment(published[len(published)-1].Message.(*pb.AppPublishRequest).GetName())
	d.Output = string(out)
	return d, nil
}

// Deployment returns an app as it is deployed now, nil when there is none of this name.
func (s *Server) Deployment(name string) *Deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.appNamed(name)
	if a == nil {
		return nil
	}
	d := &Deployment{App: a.Name, Version: a.Version, Functions: map[string]FunctionSpec{}}
	for tag, id := range a.FunctionIDs {
		d.Functions[tag] = s.spec(s.tables.Functions[id])
	}
	return d
}

func (s *Server) spec(f *function) FunctionSpec {
	def := f.Def.m
	spec := FunctionSpec{ID: f.ID, CPU: float64(def.GetResources().GetMilliCpu()) / 1000, MemoryMiB: int(def.GetResources().GetMemoryMb()),
		Timeout: f.timeout(), StartupTimeout: f.startupTimeout(), ScaledownWindow: f.scaledown(),
		MinContainers: f.minContainers(), MaxContainers: f.maxContainers(0), Retries: int(def.GetRetryPolicy().GetRetries()),
		Regions: def.GetSchedulerPlacement().GetRegions(), Secrets: s.secretNames(def.GetSecretIds()), Volumes: s.volumeNames(def.GetVolumeMounts()),
		MemorySnapshot: def.GetCheckpointingEnabled(), GPUSnapshot: isTrue(def.GetExperimentalOptions()["enable_gpu_snapshot"]),
		SingleUse: def.GetSingleUseContainers(), Concurrent: def.GetMaxConcurrentInputs() > 1, Proto: def}
	for name := range def.GetMethodDefinitions() {
		spec.Methods = append(spec.Methods, name)
	}
	slices.Sort(spec.Methods)
	spec.GPUs = gpus(f)
	for _, m := range s.files(def) {
		spec.Files = append(spec.Files, path.Clean("/"+m.Name))
	}
	slices.Sort(spec.Files)
	for _, im := range s.layers(def.GetImageId()) {
		spec.Layers = append(spec.Layers, s.layer(im))
	}
	return spec
}

func (s *Server) layer(im *image) Layer {
	r := im.Request.m
	i := r.GetImage()
	l := Layer{Lines: i.GetDockerfileCommands(), Secrets: s.secretNames(i.GetSecretIds()), Volumes: s.volumeNames(i.GetVolumeMounts()),
		GPU: gpuName(i.GetGpuConfig()), BuildFunction: i.GetBuildFunction().GetDefinition(), BuildArgs: i.GetBuildFunction().GetInput().GetArgs(), ForceBuild: r.GetForceBuild(), ContextFiles: map[string]string{}}
	if f, ok := s.tables.Functions[r.GetBuildFunctionId()]; ok {
		// A run_function step's secrets and volumes are those of the function that it runs (CODE: _image.py).
		l.Secrets = append(l.Secrets, s.secretNames(f.Def.m.GetSecretIds())...)
		l.Volumes = s.volumeNames(f.Def.m.GetVolumeMounts())
		l.GPU = gpuName(f.Def.m.GetResources().GetGpuConfig())
	}
	for _, c := range i.GetContextFiles() {
		l.ContextFiles[c.GetFilename()] = string(c.GetData())
	}
	for _, m := range s.mounted(i.GetContextMountId()) {
		l.Mounted = append(l.Mounted, m.Name)
	}
	return l
}

func (s *Server) secretNames(ids []string) []string {
	var names []string
	for _, id := range ids {
		if x, ok := s.tables.Secrets[id]; ok && x.Name != "" {
			names = append(names, x.Name)
		}
	}
	return names
}

func (s *Server) volumeNames(mounts []*pb.VolumeMount) map[string]string {
	names := map[string]string{}
	for _, m := range mounts {
		if x, ok := s.tables.Volumes[m.GetVolumeId()]; ok {
			names[m.GetMountPath()] = x.Name
		}
	}
	return names
}

// gpus are a function's GPUs in the order of choice.
func gpus(f *function) []string {
	choices := []*pb.Function{f.Def.m}
	if f.Base == "" { // a variant has one definition
		ranked := slices.SortedFunc(slices.Values(f.Data.m.GetRankedFunctions()), func(a, b *pb.FunctionData_RankedFunction) int { return int(a.GetRank()) - int(b.GetRank()) })
		choices = choices[:0]
		for _, r := range ranked {
			choices = append(choices, r.GetFunction())
		}
	}
	var names []string
	for _, def := range choices {
		if name := gpuName(def.GetResources().GetGpuConfig()); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func gpuName(c *pb.GPUConfig) string {
	if n := c.GetCount(); n > 1 {
		return fmt.Sprintf("%s:%d", c.GetGpuType(), n)
	}
	return c.GetGpuType()
}

func isTrue(s string) bool { return strings.EqualFold(s, "true") || s == "1" }
