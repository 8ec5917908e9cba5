package cluster

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob" // the bucket
)

// databases are Temporal's two, in the order in which they are dumped.
var databases = []string{"temporal", "temporal_visibility"}

// Backup writes what docs/operations.md names into a folder, while everything runs: the databases, then the bucket.
func (c *Cluster) Backup(dir string) {
	c.tb.Helper()
	for _, d := range databases {
		c.pg("pg_dump", "-Fc", "-f", filepath.Join(dir, d+".dump"), d)
	}
	c.sync(func(ctx context.Context, bucket, folder *blob.Bucket) error { return mirror(ctx, folder, bucket) }, dir)
}

// Lose is the end of the machine: every process is killed, and all that was stored is gone.
func (c *Cluster) Lose() {
	c.tb.Helper()
	for _, p := range c.all() {
		p.Kill()
	}
	for _, p := range c.all() {
		must(c.tb, os.RemoveAll(filepath.Join(c.dir, p.Name)), "the folder of "+p.Name)
	}
	for _, name := range []string{"postgres-data", "s3-data"} {
		must(c.tb, os.RemoveAll(filepath.Join(c.dir, name)), name)
		c.folder(name)
	}
	for _, p := range c.all() {
		c.folder(p.Name)
	}
}

// Restore brings the cluster up from a backup on an empty machine, in the order of docs/operations.md.
func (c *Cluster) Restore(dir string) {
	c.tb.Helper()
	c.Postgres = c.postgres()
	c.Postgres.Start()
	for _, d := range databases {
		c.pg("pg_restore", "--clean", "--if-exists", "--create", "--exit-on-error", "-d", "postgres", filepath.Join(dir, d+".dump"))
	}
	c.S3.Start()
	c.sync(func(ctx context.Context, bucket, folder *blob.Bucket) error { return mirror(ctx, bucket, folder) }, dir)
	c.script("temporal-schema").run()
	c.up()
}

// pg runs one of PostgreSQL's own programs against the cluster's.
func (c *Cluster) pg(program string, args ...string) {
	c.tb.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, "secrets", "postgres_password"))
	must(c.tb, err, "the password of PostgreSQL")
	cmd := exec.Command(filepath.Join(c.programs.postgres, program), append([]string{"-h", "127.0.0.1", "-p", c.postgresPort, "-U", "temporal"}, args...)...)
	cmd.Env = append(c.postgresEnv(), "PGPASSWORD="+strings.TrimSpace(string(raw)))
	out, err := cmd.CombinedOutput()
	must(c.tb, err, program+": "+string(out))
}

// sync does something with the bucket and the folder of its copy.
func (c *Cluster) sync(do func(ctx context.Context, bucket, folder *blob.Bucket) error, dir string) {
	c.tb.Helper()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	var url string
	for _, v := range c.service("api-1").env() { // what ours reach it with
		switch name, value, _ := strings.Cut(v, "="); {
		case name == "COMFYD_STORE_URL":
			url = value
		case strings.HasPrefix(name, "AWS_"):
			c.tb.Setenv(name, value)
		}
	}
	bucket, err := blob.OpenBucket(ctx, url)
	must(c.tb, err, "the bucket")
	folder, err := fileblob.OpenBucket(filepath.Join(dir, "bucket"), &fileblob.Options{CreateDir: true})
	must(c.tb, err, "the copy of the bucket")
	must(c.tb, errors.Join(do(ctx, bucket, folder), bucket.Close(), folder.Close()), "copying the bucket")
}

// mirror copies every object.
func mirror(ctx context.Context, to, from *blob.Bucket) error {
	for it := from.List(nil); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		raw, err := from.ReadAll(ctx, o.Key)
		if err == nil {
			err = to.WriteAll(ctx, o.Key, raw, nil)
		}
		if err != nil {
			return err
		}
	}
}
