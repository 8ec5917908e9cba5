package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// machine is what the figures were taken on.
type machine struct {
	CPU    string
	Cores  int
	Memory float64 // GiB
	Kernel string
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB, Linux %s", m.Cores, m.CPU, m.Memory, m.Kernel)
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), CPU: "unknown"}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	var kib float64
	if _, err := fmt.Sscanf(read("/proc/meminfo"), "MemTotal: %f", &kib); err == nil {
		m.Memory = kib / (1 << 20)
	}
	m.Kernel = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	return m
}

// read is a file's text, "" where there is none.
func read(name string) string {
	raw, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(raw)
}

// versions are those of everything that was measured, where they can be told.
func versions(p programs) map[string]string {
	v := map[string]string{"Go": strings.TrimPrefix(runtime.Version(), "go")}
	ask := func(name string, argv ...string) {
		if out, err := exec.Command(argv[0], argv[1:]...).Output(); err == nil {
			v[name] = strings.TrimSpace(strings.TrimPrefix(string(out), "comfyd "))
		}
	}
	ask("comfyd", p.comfyd, "version")
	ask("ComfyUI", filepath.Join(p.comfyui, ".venv/bin/python"), "-c", "exec(open('"+filepath.Join(p.comfyui, "comfyui_version.py")+"').read()); print(__version__)")
	ask("torch", filepath.Join(p.comfyui, ".venv/bin/python"), "-c", "from importlib.metadata import version; print(version('torch'))")
	if p.peer != "" {
		ask("comfy-api-proxy", filepath.Join(filepath.Dir(p.peer), "python"), "-c", "from importlib.metadata import version; print(version('comfy-api-proxy'))")
	}
	return v
}
