package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/comfyd/comfyd/internal/removal"
	"github.com/comfyd/comfyd/store"
)

// ownerTimeout bounds what a start waits for a store that does not answer.
const ownerTimeout = 15 * time.Second

// ErrForeignStore says that the store holds the jobs of another Temporal namespace.
var ErrForeignStore = errors.New("the store belongs to another Temporal namespace")

// own takes the store for the namespace, or refuses one that another namespace has: each would remove the other's files.
// A store that does not answer holds up no start: it is asked again before anything is removed.
func (a *App) own(ctx context.Context, blobs removal.Store) error {
	ctx, done := context.WithTimeout(ctx, ownerTimeout)
	defer done()
	owner, err := removal.Owner(ctx, blobs)
	if err == nil && owner != a.namespaceID {
		if owner != "" && !a.ownFolder() {
			return fmt.Errorf("%w: the one with the ID %s has it, and namespace %s at %s has the ID %s. Each would take the other's files for those of forgotten jobs and remove them. "+
				"Set COMFYD_STORE_URL to a bucket or folder of its own; should the other namespace be gone for good, remove the object %s from the store and start again",
				ErrForeignStore, owner, a.namespace, a.TemporalAddress, a.namespaceID, removal.OwnerKey)
		}
		if owner != "" {
			a.log.Warnf("the files below COMFYD_DATA_DIR were those of another database of jobs, with the ID %s; this one, with the ID %s, takes them over, and removes what belongs to no job that it knows when COMFYD_RETENTION is over. "+
				"To keep them, stop comfyd and put the other database back", owner, a.namespaceID)
		}
		err = removal.Claim(ctx, blobs, a.namespaceID)
		if err == nil {
			return a.lost(ctx, blobs)
		}
	}
	a.note("it is not known whether the store belongs to this Temporal namespace; nothing is removed from it before it is", err)
	return nil
}

// lost refuses a store that another one has taken in the same moment.
func (a *App) lost(ctx context.Context, blobs removal.Store) error {
	owner, err := removal.Owner(ctx, blobs)
	if err == nil && owner != a.namespaceID {
		return fmt.Errorf("%w: the one with the ID %s has just taken it; set COMFYD_STORE_URL to a bucket or folder of its own", ErrForeignStore, owner)
	}
	a.note("it is not known whether the store belongs to this Temporal namespace; nothing is removed from it before it is", err)
	return nil
}

// ownFolder tells whether the store is the folder within the data folder, beside the embedded Temporal's database: that
// folder is locked, so nobody else can be using it.
func (a *App) ownFolder() bool {
	folder, err := filepath.Abs(store.FolderOf(a.config.StoreURL))
	if err != nil || store.FolderOf(a.config.StoreURL) == "" || !a.config.Embedded() {
		return false
	}
	own, err := filepath.Abs(filepath.Join(a.config.DataDir, "blobs"))
	return err == nil && folder == own
}
