package localcomfy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/comfyd/comfyd/backend/comfyhttp"
)

// removeFiles deletes files in ComfyUI's own folders, and the folders in these that are empty then. What a path names
// outside of them stays.
func (b *Backend) removeFiles(ctx context.Context, _ string, files []comfyhttp.RemotePath) error {
	var errs []error
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := b.removeFile(f); err != nil {
			errs = append(errs, fmt.Errorf("removing %s from ComfyUI's folder %s: %w", path.Join(f.Subfolder, f.Filename), f.Folder, err))
		}
	}
	return errors.Join(errs...)
}

func (b *Backend) removeFile(f comfyhttp.RemotePath) error {
	if !slices.Contains([]string{"input", "output", "temp"}, f.Folder) {
		return errors.New("comfyd removes nothing from there")
	}
	root, err := os.OpenRoot(filepath.Join(b.data, f.Folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // ComfyUI makes temp anew at its start
	}
	if err != nil {
		return err
	}
	defer root.Close()
	name := path.Join(f.Subfolder, f.Filename)
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if root.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil
}
