package store

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/comfyd/comfyd/comfy"
)

func (f *folder) list(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error] {
	return func(yield func(comfy.Blob, error) bool) {
		// Only the folder that the prefix names can hold its keys.
		dir := "."
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir = prefix[:i]
		}
		f.walk(ctx, dir, prefix, yield)
	}
}

func (f *folder) walk(ctx context.Context, dir, prefix string, yield func(comfy.Blob, error) bool) bool {
	entries, err := f.entries(dir)
	if err != nil {
		return yield(comfy.Blob{}, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			yield(comfy.Blob{}, err)
			return false
		}
		key := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			if strings.HasPrefix(key+"/", prefix) || strings.HasPrefix(prefix, key+"/") {
				if !f.walk(ctx, key, prefix, yield) {
					return false
				}
			}
		case e.Type().IsRegular() && strings.HasPrefix(key, prefix):
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(comfy.Blob{}, err)
				return false
			}
			if !yield(blobOf(key, info), nil) {
				return false
			}
		}
	}
	return true
}

// entries of a folder in the order of the keys they lead to, in which "a.b" stands before "a/b" before "ab".
func (f *folder) entries(dir string) ([]fs.DirEntry, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		if err = missing(err); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sortKey := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
	return entries, nil
}
