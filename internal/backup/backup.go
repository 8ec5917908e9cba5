// Package backup copies the state of an all-in-one comfyd, the database of its embedded Temporal, the store's folder and
// the keys, and puts it back on an empty machine. A backup is laid out as a data folder is, with a manifest beside it.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/comfyd/comfyd/internal/embedded"
)

// Options say what is backed up, or restored.
type Options struct {
	// DataDir is the data folder.
	DataDir string
	// Store is the folder of the store; empty where the store is a bucket, which has its own means.
	Store string
	// Version is that of this program, for the manifest.
	Version string
	// Link makes hard links of the store's files in place of copies: at once and without room, but damage to a file on the
	// disk damages both. The backup has to be on the same file system then.
	Link bool
	// Say gets a line on each step, for a person. It must not be nil.
	Say func(line string)
}

// Refusal is a request that cannot be carried out as it is. Nothing was changed.
type Refusal struct{ Text string }

func (e *Refusal) Error() string { return e.Text }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

const (
	manifestName = "manifest.json"
	storeName    = "blobs"
	format       = 1
)

// small are the files of a data folder that a backup holds beside the database, as far as they are there.
var small = []string{"api-key", "signing-key", filepath.Join("comfyui-data", "pool")}

// Manifest is what a backup says of itself.
type Manifest struct {
	Format   int               `json:"format"` // 1
	Comfyd   string            `json:"comfyd"`
	Created  time.Time         `json:"created"`
	Temporal embedded.Database `json:"temporal"`
	Database File              `json:"database"`
	// Store is nil where the store is a bucket.
	Store *Tree    `json:"store,omitempty"`
	Files []string `json:"files,omitempty"` // keys and names, relative to the backup
}

// File is a file's size and the hex SHA-256 of its bytes.
type File struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Make copies everything to the new folder target, while comfyd runs or not. The database comes first, so that it names
// nothing that the copy of the store lacks, but for what is deleted meanwhile. The folder has its name once it is complete.
func Make(ctx context.Context, o Options, target string) (_ *Manifest, err error) {
	if target, err = filepath.Abs(target); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(target); err == nil {
		return nil, refuse("%s is there already: name a folder that is not", target)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, refuse("no folder can be made there: %v", err)
	}
	if inside(o.DataDir, target) {
		return nil, refuse("%s is in the data folder, %s: what takes the one takes the other; name a folder outside, best on another disk", target, o.DataDir)
	}
	if o.Store != "" && inside(o.Store, target) {
		return nil, refuse("%s is in the folder of the store, %s: name a folder outside, best on another disk", target, o.Store)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the backup: %w", err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(target), filepath.Base(target)+".partial-*")
	if err != nil {
		return nil, fmt.Errorf("making the folder of the backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	m := &Manifest{Format: format, Comfyd: o.Version, Created: time.Now().UTC()}
	if err := m.fill(ctx, o, partial); err != nil {
		return nil, fmt.Errorf("making the backup: %w", err)
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(partial, manifestName), append(raw, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	if err := syncAll(partial, filepath.Join(partial, manifestName)); err != nil {
		return nil, fmt.Errorf("writing the backup: %w", err)
	}
	// Rename would replace an empty folder; one that somebody has made meanwhile is theirs.
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		return nil, refuse("%s is there already: name a folder that is not", target)
	}
	if err := os.Rename(partial, target); err != nil {
		return nil, fmt.Errorf("giving the backup its name: %w", err)
	}
	return m, syncAll(filepath.Dir(target))
}

func (m *Manifest) fill(ctx context.Context, o Options, to string) (err error) {
	o.Say("copying the database")
	database := filepath.Join(to, embedded.DatabaseFile)
	if m.Temporal, err = embedded.CopyDatabase(ctx, o.DataDir, database); err != nil {
		return err
	}
	if m.Database, err = sum(ctx, database); err != nil {
		return err
	}
	if o.Store != "" {
		o.Say(fmt.Sprintf("copying the store %s", o.Store))
		put := copyFile
		if o.Link {
			put = linkFile
		}
		tree, err := copyTree(ctx, o, o.Store, filepath.Join(to, storeName), put)
		if err != nil {
			return err
		}
		m.Store = &tree
		for _, key := range tree.Damaged {
			o.Say(fmt.Sprintf("damaged in the store already: %s", key))
		}
	}
	for _, name := range small {
		err := copySmall(ctx, filepath.Join(o.DataDir, name), filepath.Join(to, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		m.Files = append(m.Files, name)
	}
	return nil
}

// Summary is one line for a person.
func (m *Manifest) Summary() string {
	line := fmt.Sprintf("database %s (Temporal %s)", humanize.IBytes(uint64(m.Database.Bytes)), m.Temporal.Server)
	if m.Store == nil {
		line += "; no files: the store is a bucket"
	} else {
		line += fmt.Sprintf("; %d files, %s", m.Store.Files, humanize.IBytes(uint64(m.Store.Bytes)))
	}
	return line + "; " + strings.Join(append([]string{"with"}, m.Files...), " ")
}

// inside tells whether path is folder or lies below it.
func inside(folder, path string) bool {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
