package backend

import (
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// Want is which pools a job may run on.
type Want struct {
	Pool string // by name or kind; empty for any
	GPU  string // one of the pool's GPUs; empty for any
}

// WantOf reads it from a request.
func WantOf(r *comfy.Request) Want { return Want{Pool: r.Backend, GPU: r.GPU} }

// Names tells whether p is the pool that is asked for, or one of that kind.
func (w Want) Names(p Pool) bool { return w.Pool == "" || w.Pool == p.Name || w.Pool == p.Kind }

// GPUOf is the pool's own spelling of the GPU that is asked for; empty where it offers no such GPU.
func (w Want) GPUOf(p Pool) string {
	i := slices.IndexFunc(p.GPUs, func(g string) bool { return strings.EqualFold(g, w.GPU) })
	if i < 0 {
		return ""
	}
	return p.GPUs[i]
}

// Fits tells whether the job may run on p.
func (w Want) Fits(p Pool) bool {
	return w.Names(p) && (w.GPU == "" || w.GPUOf(p) != "")
}
