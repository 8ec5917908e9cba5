package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/internal/embedded"
)

// staging is where a restore copies to before it gives anything its name; no key of the store begins with a dot.
const staging = ".restoring"

// Restore puts the backup in source into an empty data folder and an empty store. It checks the whole of it first, and the
// database gets its name last: a restore that was broken off leaves no database.
func Restore(ctx context.Context, o Options, source string) (_ *Manifest, err error) {
	m, err := readManifest(source)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Store != nil && o.Store == "":
		return nil, refuse("the backup holds the store's files, and COMFYD_STORE_URL names a bucket: unset it, or set it to a folder")
	case m.Store == nil && o.Store != "":
		return nil, refuse("the files of this backup's jobs lie in a bucket: set COMFYD_STORE_URL to it")
	}
	unlock, err := embedded.Lock(o.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := empty(o, m); err != nil {
		return nil, err
	}
	stages := []string{filepath.Join(o.DataDir, staging)}
	if m.Store != nil {
		if err := os.MkdirAll(o.Store, 0o700); err != nil {
			return nil, fmt.Errorf("making the folder of the store: %w", err)
		}
		stages = append(stages, filepath.Join(o.Store, staging))
	}
	clean := func() error {
		var errs []error
		for _, s := range stages {
			errs = append(errs, os.RemoveAll(s))
		}
		return errors.Join(errs...)
	}
	if err := clean(); err != nil { // of one that was killed
		return nil, fmt.Errorf("clearing the data folder: %w", err)
	}
	defer func() { err = errors.Join(err, clean()) }()
	if err := m.stage(ctx, o, source); err != nil {
		return nil, err
	}
	if err := m.place(o); err != nil {
		return nil, fmt.Errorf("restoring: %w", err)
	}
	return m, nil
}

func readManifest(source string) (*Manifest, error) {
	raw, err := os.ReadFile(filepath.Join(source, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse("%s is no backup of comfyd, or not a complete one: it has no %s", source, manifestName)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the backup: %w", err)
	}
	m := &Manifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, damaged("%s cannot be read: %v", manifestName, err)
	}
	if m.Format != format {
		return nil, refuse("the backup is of format %d, made by comfyd %s, and this comfyd reads format %d: restore it with that comfyd", m.Format, m.Comfyd, format)
	}
	for _, name := range m.Files {
		if !slices.Contains(small, name) {
			return nil, damaged("%s names a file that no backup has: %q", manifestName, name)
		}
	}
	return m, nil
}

func damaged(text string, args ...any) error {
	return refuse("the backup is damaged: "+text+"; nothing was changed", args...)
}

// empty refuses a data folder or a store that has something already of what a restore brings.
func empty(o Options, m *Manifest) error {
	var there []string
	for _, name := range append([]string{embedded.DatabaseFile, embedded.DatabaseFile + "-wal"}, m.Files...) {
		path := filepath.Join(o.DataDir, name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, path)
		}
	}
	if m.Store != nil {
		entries, err := os.ReadDir(o.Store)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking at the store: %w", err)
		}
		if slices.ContainsFunc(entries, visible) {
			there = append(there, "files in "+o.Store)
		}
	}
	if len(there) > 0 {
		return refuse("a backup is restored into an empty data folder only, and there is %s: move that away, or set COMFYD_DATA_DIR to another folder", strings.Join(there, ", "))
	}
	return nil
}

func visible(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") }

// stage copies everything beside where it will be, and checks it there.
func (m *Manifest) stage(ctx context.Context, o Options, source string) error {
	o.Say("copying and checking the database")
	stage := filepath.Join(o.DataDir, staging)
	if err := os.Mkdir(stage, 0o700); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	database := filepath.Join(stage, embedded.DatabaseFile)
	got, err := copyFile(ctx, filepath.Join(source, embedded.DatabaseFile), database)
	if err != nil {
		return fmt.Errorf("copying the database: %w", err)
	}
	if got != m.Database {
		return damaged("%s is not the file that was backed up", embedded.DatabaseFile)
	}
	if err := embedded.CheckDatabase(ctx, database); err != nil {
		return fmt.Errorf("the backup's database: %w", err)
	}
	for _, name := range m.Files {
		if err := copySmall(ctx, filepath.Join(source, name), filepath.Join(stage, name)); err != nil {
			return fmt.Errorf("copying %s: %w", name, err)
		}
	}
	if m.Store == nil {
		return nil
	}
	o.Say(fmt.Sprintf("copying and checking the files to %s", o.Store))
	tree, err := copyTree(ctx, o, filepath.Join(source, storeName), filepath.Join(o.Store, staging), copyFile)
	if err != nil {
		return fmt.Errorf("copying the files: %w", err)
	}
	if tree.Files != m.Store.Files || tree.Bytes != m.Store.Bytes {
		return damaged("it has %d files with %d bytes, and should have %d with %d", tree.Files, tree.Bytes, m.Store.Files, m.Store.Bytes)
	}
	for _, key := range tree.Damaged {
		if !slices.Contains(m.Store.Damaged, key) {
			return damaged("the bytes of %s are not those of its name", key)
		}
	}
	return nil
}

// place gives everything its name, the database last.
func (m *Manifest) place(o Options) error {
	if m.Store != nil {
		stage := filepath.Join(o.Store, staging)
		entries, err := os.ReadDir(stage)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := os.Rename(filepath.Join(stage, e.Name()), filepath.Join(o.Store, e.Name())); err != nil {
				return err
			}
		}
		if err := syncAll(o.Store); err != nil {
			return err
		}
	}
	for _, name := range append(slices.Clone(m.Files), embedded.DatabaseFile) {
		to := filepath.Join(o.DataDir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(o.DataDir, staging, name), to); err != nil {
			return err
		}
		if err := syncAll(filepath.Dir(to)); err != nil {
			return err
		}
	}
	return nil
}
