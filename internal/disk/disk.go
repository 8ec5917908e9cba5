// Package disk tells in time that the file systems which comfyd writes to are nearly full: SQLite and the store survive a
// full disk, but neither can keep anything new then.
package disk

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/shirou/gopsutil/v4/disk"
)

// Guard watches the file systems of some folders.
type Guard struct {
	// Min is how many bytes must be free for this user on each of them.
	Min     uint64
	Folders []Folder
}

// Folder is one that is written to.
type Folder struct {
	Path string
	// What lies in it, and the setting that names it, for people: "the jobs", "COMFYD_DATA_DIR".
	What, Setting string
}

// LowError says which disk is nearly full. Its text names no path, so that anybody may read it.
type LowError struct {
	Folder    Folder
	Free, Min uint64 // bytes
}

func (e *LowError) Error() string {
	return fmt.Sprintf("the disk of %s (%s) has %s free, and %s are kept free (COMFYD_MIN_FREE_DISK)",
		e.Folder.What, e.Folder.Setting, units.BytesSize(float64(e.Free)), units.BytesSize(float64(e.Min)))
}

// Free is how many bytes are free for this user, by what lies in the folder. One that cannot be looked at is left out.
func (g *Guard) Free(ctx context.Context) map[string]uint64 {
	free := map[string]uint64{}
	for _, f := range g.Folders {
		if usage, err := disk.UsageWithContext(ctx, f.Path); err == nil {
			free[f.What] = usage.Free
		}
	}
	return free
}

// Check returns a *LowError for the first folder whose file system has less than Min free. One that cannot be looked at
// has room: whoever writes to it next will tell what is wrong with it.
func (g *Guard) Check(ctx context.Context) error {
	for _, f := range g.Folders {
		usage, err := disk.UsageWithContext(ctx, f.Path)
		if err != nil {
			continue
		}
		if usage.Free < g.Min {
			return &LowError{Folder: f, Free: usage.Free, Min: g.Min}
		}
	}
	return nil
}
