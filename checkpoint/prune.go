package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Prune removes all checkpoints except the keepLast newest ones and, if keepEvery is not 0, those
// whose step is a multiple of keepEvery. It never removes the newest checkpoint that verifies,
// whatever the numbers. It returns the removed ones, ascending by step. The error says why others
// could not be removed, now or by an earlier call; the next Save tries again.
func (r *Run) Prune(keepLast, keepEvery int) ([]Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	removed, err := r.prune(keepLast, keepEvery)
	if err = errors.Join(r.left, err); err != nil {
		return removed, fmt.Errorf("prune checkpoints: %w", err)
	}
	return removed, nil
}

func (r *Run) prune(keepLast, keepEvery int) ([]Info, error) {
	if keepLast < 1 || keepEvery < 0 {
		return nil, fmt.Errorf("keep_last %d must be at least 1 and keep_every %d not negative", keepLast, keepEvery)
	}
	if err := r.locked(); err != nil {
		return nil, err
	}
	infos, err := List(r.dir)
	if err != nil || len(infos) <= keepLast {
		return nil, err
	}
	var old []Info
	for _, info := range infos[:len(infos)-keepLast] {
		if keepEvery == 0 || info.Step%int64(keepEvery) != 0 {
			old = append(old, info)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	good, err := r.newestGood(infos)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(r.dir, checkpointsDir)
	var removed []Info
	var errs []error
	for _, info := range old {
		if info.Dir == good {
			continue
		}
		// Renamed first, so that being killed halfway leaves nothing that looks like a damaged
		// checkpoint.
		temp := filepath.Join(root, removingPrefix+filepath.Base(info.Dir))
		if err := r.fs.Rename(info.Dir, temp); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(r.verified, info.Dir)
		removed = append(removed, info)
		errs = append(errs, r.fs.RemoveAll(temp))
	}
	return removed, errors.Join(append(errs, r.fs.SyncDir(root))...)
}

// newestGood returns the folder of the newest checkpoint that verifies. Folders that this process
// wrote or verified earlier and whose files have not changed since are not read again: that would
// double the cost of every save.
func (r *Run) newestGood(infos []Info) (string, error) {
	var firstErr error
	for _, info := range slices.Backward(infos) {
		stamp, err := stampOf(info.Dir)
		if err == nil && r.verified[info.Dir] == stamp {
			return info.Dir, nil
		}
		if err == nil {
			err = Verify(info.Dir)
		}
		if err == nil {
			r.verified[info.Dir] = stamp
			return info.Dir, nil
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return "", fmt.Errorf("nothing was removed, because no checkpoint verifies: %w", firstErr)
}

// stampOf lists a folder's files with their sizes and times: equal stamps mean that nothing was
// written in between.
func stampOf(dir string) (string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s %d %d\n", f.Name(), info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}
