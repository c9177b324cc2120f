package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

// Save writes a checkpoint of step s.Step and returns once it is on disk. It appears under its name
// complete or not at all. After an error the older checkpoints are unchanged and nothing partial is
// left.
//
// The tensors' data must not change until Save returns. A checkpoint of the same step is replaced.
func (r *Run) Save(s State, model, optimizer []Tensor) (Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := r.save(s, model, optimizer)
	return info, saving(s.Step, err)
}

func (r *Run) save(s State, model, optimizer []Tensor) (Info, error) {
	if err := s.check(); err != nil {
		return Info{}, err
	}
	for _, t := range slices.Concat(model, optimizer) {
		if err := t.check(); err != nil {
			return Info{}, err
		}
	}
	temp, err := r.begin(s.Step)
	if err != nil {
		return Info{}, err
	}
	share, err := writeShare(r.fs, temp, "", r.maxFile, model, optimizer)
	if err != nil {
		return Info{}, discard(r.fs, temp, err)
	}
	return r.finish(temp, s, []Share{share})
}

// finish turns the folder temp, which contains the files of the shares, into the checkpoint of
// state s.
func (r *Run) finish(temp string, s State, shares []Share) (Info, error) {
	if err := r.describe(temp, s, shares); err != nil {
		return Info{}, discard(r.fs, temp, err)
	}
	root, name := filepath.Join(r.dir, checkpointsDir), stepName(s.Step)
	final, replaced := filepath.Join(root, name), filepath.Join(root, replacedPrefix+name)
	displaced := false
	if _, err := os.Lstat(final); err == nil {
		if err := r.fs.Rename(final, replaced); err != nil {
			return Info{}, discard(r.fs, temp, err)
		}
		displaced = true
	}
	if err := r.fs.Rename(temp, final); err != nil {
		if displaced {
			if backErr := r.fs.Rename(replaced, final); backErr != nil {
				err = fmt.Errorf("%w; moving the replaced checkpoint back failed too: %v", err, backErr)
			}
		}
		return Info{}, discard(r.fs, temp, err)
	}
	if err := r.fs.SyncDir(root); err != nil {
		return Info{}, fmt.Errorf("%s is written, but may not survive a power failure: %w", final, err)
	}
	if displaced {
		if err := r.fs.RemoveAll(replaced); err != nil {
			return Info{}, fmt.Errorf("%s is saved, but the checkpoint it replaces could not be removed: %w", final, err)
		}
	}
	if stamp, err := stampOf(final); err == nil {
		r.verified[final] = stamp
	}
	return inspect(final, s.Step), nil
}

// describe writes everything except tensors into the checkpoint folder dir, the manifest last,
// durably.
func (r *Run) describe(dir string, s State, shares []Share) error {
	var files []fileRecord
	pieces := map[string][]int{}
	for _, share := range shares {
		files = append(files, share.Files...)
		for _, p := range share.Pieces {
			pieces[p.Name] = p.Shape
		}
	}
	if s.Recipe != nil {
		f, err := writeBytes(r.fs, dir, RecipeFile, s.Recipe)
		if err != nil {
			return err
		}
		f.Part = partRecipe
		files = append(files, f)
	}
	m := newManifest(s, r.now(), files, pieces)
	if err := m.check(); err != nil {
		return err
	}
	text, sumLine, err := m.encode()
	if err != nil {
		return err
	}
	if _, err := writeBytes(r.fs, dir, manifestFile, text); err != nil {
		return err
	}
	if _, err := writeBytes(r.fs, dir, manifestSumFile, []byte(sumLine)); err != nil {
		return err
	}
	return r.fs.SyncDir(dir)
}

// maxFileBytes is the maximum number of bytes of tensors in one file: small enough for any file
// system, and for files to be copied and checked in parallel.
const maxFileBytes = 4 << 30

// shardTensors divides tensors, in order, among files of at most limit bytes. A larger tensor gets
// its own file.
func shardTensors(tensors []Tensor, limit int64) [][]Tensor {
	shards, left := [][]Tensor{nil}, limit
	for _, t := range tensors {
		size := 4 * int64(len(t.Data))
		if last := len(shards) - 1; size > left && len(shards[last]) > 0 {
			shards, left = append(shards, nil), limit
		}
		last := len(shards) - 1
		shards[last] = append(shards[last], t)
		left -= size
	}
	return shards
}

// shardName returns the name of file i of a part's n files.
func shardName(part string, i, n int) string {
	if n == 1 {
		return part + ".safetensors"
	}
	return fmt.Sprintf("%s-%05d-of-%05d.safetensors", part, i+1, n)
}

func writeTensors(w io.Writer, tensors []Tensor) error {
	byName := make(map[string]Tensor, len(tensors))
	entries := make([]safetensors.Entry, len(tensors))
	for i, t := range tensors {
		byName[t.Name] = t
		entries[i] = safetensors.Entry{Name: t.Name, DType: safetensors.F32, Shape: t.Shape}
	}
	sw, err := safetensors.NewWriter(w, entries, nil)
	if err != nil {
		return err
	}
	for _, e := range sw.Entries() {
		if err := sw.WriteFloat32(e.Name, byName[e.Name].Data); err != nil {
			return err
		}
	}
	return sw.Finish()
}

// discard removes the partial folder temp after the error cause, which it returns.
func discard(fs fileSystem, temp string, cause error) error {
	if err := fs.RemoveAll(temp); err != nil {
		return fmt.Errorf("%w; removing the partial %s failed too: %v", cause, temp, err)
	}
	return cause
}

// recover cleans up the checkpoints folder after a writer was killed, and says what it did. left is
// why something could not be removed; another program may have it open.
func (r *Run) recover() (done []string, left, err error) {
	root := filepath.Join(r.dir, checkpointsDir)
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		for _, prefix := range []string{savingPrefix, removingPrefix, replacedPrefix} {
			name, ok := strings.CutPrefix(e.Name(), prefix)
			if _, isStep := parseStep(name); !ok || !isStep {
				continue
			}
			if prefix == replacedPrefix {
				final := filepath.Join(root, name)
				if _, err := os.Lstat(final); errors.Is(err, os.ErrNotExist) {
					// Killed between the two renames: the new checkpoint was not in place yet.
					if err := r.fs.Rename(path, final); err != nil {
						return done, left, err
					}
					done = append(done, fmt.Sprintf("%s: put back after a save that was to replace it was interrupted", final))
					continue
				}
				// The new one is in place, but perhaps not yet on disk.
				if err := r.fs.SyncDir(root); err != nil {
					return done, left, err
				}
			}
			if err := r.fs.RemoveAll(path); err != nil {
				left = errors.Join(left, err)
				continue
			}
			done = append(done, fmt.Sprintf("%s: removed, left over from an interrupted save or removal", path))
		}
	}
	if len(done) > 0 {
		if err := r.fs.SyncDir(root); err != nil {
			return done, left, err
		}
	}
	return done, left, nil
}
