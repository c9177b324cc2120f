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

// Save writes a checkpoint of step s.Step and returns once it is on the disk. It appears under its name whole or not
// at all. After an error the older checkpoints are as they were and nothing partial is left.
//
// The tensors' data must not change until Save returns. A checkpoint of the same step is replaced.
func (r *Run) Save(s State, model, optimizer []Tensor) (Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := r.save(s, model, optimizer)
	if err != nil {
		return Info{}, fmt.Errorf("save checkpoint of step %d: %w", s.Step, err)
	}
	return info, nil
}

func (r *Run) save(s State, model, optimizer []Tensor) (Info, error) {
	if err := r.locked(); err != nil {
		return Info{}, err
	}
	if err := s.check(); err != nil {
		return Info{}, err
	}
	for _, t := range slices.Concat(model, optimizer) {
		if err := t.check(); err != nil {
			return Info{}, err
		}
	}
	root := filepath.Join(r.dir, checkpointsDir)
	if err := r.fs.Mkdir(root); err != nil && !errors.Is(err, os.ErrExist) {
		return Info{}, err
	}
	// Also when the folder exists: who made it may have been killed before this.
	if err := r.fs.SyncDir(r.dir); err != nil {
		return Info{}, err
	}
	// A save that failed may not have been able to clean up behind itself.
	if _, err := r.recover(); err != nil {
		return Info{}, err
	}

	name := stepName(s.Step)
	temp, final, replaced := filepath.Join(root, savingPrefix+name), filepath.Join(root, name), filepath.Join(root, replacedPrefix+name)
	if err := r.fill(temp, s, model, optimizer); err != nil {
		return Info{}, discard(r.fs, temp, err)
	}
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

// fill writes a checkpoint's files into the new folder dir, durably.
func (r *Run) fill(dir string, s State, model, optimizer []Tensor) error {
	if err := r.fs.Mkdir(dir); err != nil {
		return err
	}
	var files []fileRecord
	for _, p := range []struct {
		part    string
		tensors []Tensor
	}{{partModel, model}, {partOptimizer, optimizer}} {
		shards := shardTensors(p.tensors, r.maxFile)
		for i, tensors := range shards {
			f, err := writeFile(r.fs, dir, shardName(p.part, i, len(shards)), func(w io.Writer) error { return writeTensors(w, tensors) })
			if err != nil {
				return err
			}
			f.Part = p.part
			files = append(files, f)
		}
	}
	if s.Recipe != nil {
		f, err := writeBytes(r.fs, dir, recipeFile, s.Recipe)
		if err != nil {
			return err
		}
		f.Part = partRecipe
		files = append(files, f)
	}
	text, sumLine, err := newManifest(s, r.now(), files).encode()
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

// maxFileBytes is the most bytes of tensors in one file: small enough for any file system, and for files to be copied
// and checked side by side.
const maxFileBytes = 4 << 30

// shardTensors cuts tensors, in their order, into files of at most limit bytes. A tensor that is larger has its own.
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

// shardName is the name of file i of a part's n.
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

// recover brings the checkpoints folder back to order after a writer was killed, and says what it did.
func (r *Run) recover() ([]string, error) {
	root := filepath.Join(r.dir, checkpointsDir)
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var done []string
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		for _, prefix := range []string{savingPrefix, removingPrefix, replacedPrefix} {
			name, ok := strings.CutPrefix(e.Name(), prefix)
			if _, isStep := parseStep(name); !ok || !isStep {
				continue
			}
			if prefix == replacedPrefix {
				// Killed between the two renames: the new checkpoint was not in place yet.
				final := filepath.Join(root, name)
				if _, err := os.Lstat(final); errors.Is(err, os.ErrNotExist) {
					if err := r.fs.Rename(path, final); err != nil {
						return done, err
					}
					done = append(done, fmt.Sprintf("%s: put back after a save that was to replace it was interrupted", final))
					continue
				}
			}
			if err := r.fs.RemoveAll(path); err != nil {
				return done, err
			}
			done = append(done, fmt.Sprintf("%s: removed, left over from an interrupted save or removal", path))
		}
	}
	if len(done) > 0 {
		if err := r.fs.SyncDir(root); err != nil {
			return done, err
		}
	}
	return done, nil
}
