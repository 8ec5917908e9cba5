package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs are what the images of docker-compose.yml hold.
type programs struct {
	folder   string // temporal-server, temporal-sql-tool and versitygw
	postgres string // the folder of PostgreSQL's own programs
	comfyd   string
}

// find skips the test where the programs are missing: make test prepares them (scripts/temporal.sh, scripts/postgres.sh).
func find(tb testing.TB) programs {
	tb.Helper()
	p := programs{folder: tb.TempDir(), postgres: os.Getenv("COMFYD_TEST_POSTGRES")}
	temporal, s3 := os.Getenv("COMFYD_TEST_TEMPORAL"), os.Getenv("COMFYD_TEST_S3_SERVER")
	for name, value := range map[string]string{"COMFYD_TEST_POSTGRES": p.postgres, "COMFYD_TEST_TEMPORAL": temporal, "COMFYD_TEST_S3_SERVER": s3} {
		if value == "" {
			tb.Skipf("%s is not set: make test prepares PostgreSQL, the Temporal server and an S3 server, and sets it", name)
		}
	}
	for name, from := range map[string]string{
		"temporal-server": filepath.Join(temporal, "temporal-server"), "temporal-sql-tool": filepath.Join(temporal, "temporal-sql-tool"), "versitygw": s3,
	} {
		must(tb, os.Symlink(from, filepath.Join(p.folder, name)), name)
	}
	p.comfyd = Build(tb, "test")
	return p
}

// Build makes the program of comfyd's image, as the Dockerfile does, and says that it is of that version.
func Build(tb testing.TB, version string) string {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), "comfyd")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", "noembedded", "-ldflags", "-s -w -X main.version="+version, "-o", program, "./cmd/comfyd")
	build.Dir, build.Env = Root(), append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		tb.Fatalf("building comfyd: %v\n%s", err, out)
	}
	return program
}

// Help is what the help of a program of [Build] says about a command line, without its flags.
func Help(tb testing.TB, program string, args ...string) string {
	tb.Helper()
	var words []string
	for _, a := range args {
		if a[0] != '-' {
			words = append(words, a)
		}
	}
	out, err := exec.Command(program, append(words, "--help")...).CombinedOutput()
	if err != nil {
		tb.Fatalf("comfyd %v --help: %v\n%s", args, err, out)
	}
	return string(out)
}
