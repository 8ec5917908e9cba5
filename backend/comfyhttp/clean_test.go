package comfyhttp

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
)

// TestJobsLeaveNothing runs jobs with an input, a saved and a previewed image, and weighs ComfyUI's folders before and
// after. COMFYD_TEST_JOBS changes their number from 100.
func TestJobsLeaveNothing(t *testing.T) {
	jobs := 100
	if n, err := strconv.Atoi(os.Getenv("COMFYD_TEST_JOBS")); err == nil {
		jobs = n
	}
	b := open(t, Options{URLs: []string{realComfyUI(t)}}, defaultTiming())
	require.NoError(t, b.Probe(t.Context()))
	folders := foldersOf(t, b.servers[0])

	seedJob := backendtest.Prompt(t, noise(-1))
	seedOut, err := b.Run(t.Context(), seedJob, nil, newRecorder())
	require.NoError(t, err)
	f := &fixture{T: t, b: b}
	picture, err := f.read(seedOut, seedOut.Files[0])
	require.NoError(t, err)
	require.NoError(t, b.Release(t.Context(), seedOut.Handle, seedOut.Files))

	before := weigh(t, folders)
	begin := time.Now()
	made := make([]int64, jobs)
	var group errgroup.Group
	group.SetLimit(8)
	for i := range jobs {
		p := backendtest.Prompt(t, noise(i))
		p.Inputs = []backend.Input{input("picture.png", picture)}
		group.Go(func() error {
			out, err := b.Run(t.Context(), p, nil, newRecorder())
			if err != nil {
				return err
			}
			if len(out.Files) != 2 {
				return fmt.Errorf("%d files", len(out.Files))
			}
			for _, file := range out.Files {
				data, err := f.read(out, file)
				if err != nil {
					return err
				}
				made[i] += int64(len(data))
			}
			return b.Release(t.Context(), out.Handle, out.Files)
		})
	}
	require.NoError(t, group.Wait())
	total := int64(0)
	for _, n := range made {
		total += n
	}
	after := weigh(t, folders)
	t.Logf("%d jobs in %s made %d bytes; the folders grew by %d bytes", jobs, time.Since(begin).Round(time.Millisecond), total, after-before)
	require.Greater(t, total, int64(jobs)*50_000)
	require.Less(t, after-before, int64(jobs)*1000)
}

func noise(seed int) string {
	if seed < 0 {
		return `{"1":{"class_type":"EmptyImage","inputs":{"width":128,"height":128,"batch_size":1,"color":128}},
			"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":1,"strength":1.0}},
			"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"comfyd-suite/clean"}}}`
	}
	return fmt.Sprintf(`{"1":{"class_type":"LoadImage","inputs":{"image":"picture.png"}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":%d,"strength":1.0}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"comfyd-suite/clean"}},
		"4":{"class_type":"PreviewImage","inputs":{"images":["2",0]}}}`, seed)
}

// foldersOf reads where a ComfyUI on this machine keeps its files from the arguments that it tells.
func foldersOf(t *testing.T, s *server) []string {
	var stats struct {
		System struct {
			Argv []string `json:"argv"`
		} `json:"system"`
	}
	require.NoError(t, s.get(t.Context(), time.Minute, "/system_stats", &stats))
	var folders []string
	for name, below := range map[string]string{"input": "", "output": "", "temp": "temp"} {
		dir := ""
		if i := slices.Index(stats.System.Argv, "--"+name+"-directory"); i >= 0 && i+1 < len(stats.System.Argv) {
			dir = filepath.Join(stats.System.Argv[i+1], below)
		} else if home := os.Getenv("COMFYD_TEST_COMFYUI_DIR"); home != "" {
			dir = filepath.Join(home, name)
		}
		if info, err := os.Stat(dir); (dir == "" || err != nil || !info.IsDir()) && name != "temp" {
			t.Skipf("the ComfyUI under test does not tell its %s folder, or it is on another machine", name)
		}
		folders = append(folders, dir)
	}
	return folders
}

func weigh(t *testing.T, folders []string) (total int64) {
	for _, dir := range folders {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // a temp folder that nobody has needed yet
			}
			info, err := d.Info()
			if err == nil {
				total += info.Size()
			}
			return nil
		})
		require.NoError(t, err)
	}
	return total
}
