package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Share is the part of a checkpoint that one of several processes has written: its files, which are
// on disk, and the pieces of tensors that they contain. It is sent as JSON to the process that
// finishes the checkpoint.
type Share struct {
	Files  []fileRecord `json:"files"`
	Pieces []Piece      `json:"pieces,omitempty"`
}

// Begin creates the folder for a checkpoint of step s that several processes write. Each of them
// then calls WriteShare, and this one Finish. An unfinished checkpoint from an earlier Begin is
// removed.
func (r *Run) Begin(step int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.begin(step)
	return saving(step, err)
}

func saving(step int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("save checkpoint of step %d: %w", step, err)
}

// begin creates an empty temporary folder.
func (r *Run) begin(step int64) (temp string, err error) {
	if err := r.locked(); err != nil {
		return "", err
	}
	root := filepath.Join(r.dir, checkpointsDir)
	if err := r.fs.Mkdir(root); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// Also if the folder exists: its creator may have been killed before this.
	if err := r.fs.SyncDir(r.dir); err != nil {
		return "", err
	}
	// A save that failed may not have been able to clean up after itself.
	if _, r.left, err = r.recover(); err != nil {
		return "", err
	}
	temp = savingDir(r.dir, step)
	if err := r.fs.Mkdir(temp); errors.Is(err, os.ErrExist) && r.left != nil {
		return "", r.left
	} else if err != nil {
		return "", discard(r.fs, temp, err)
	}
	return temp, nil
}

func savingDir(runDir string, step int64) string {
	return filepath.Join(runDir, checkpointsDir, savingPrefix+stepName(step))
}

// Finish makes a checkpoint from the folder created by Begin and the shares of all processes. It
// appears under its name complete or not at all. After an error the older checkpoints are unchanged
// and nothing partial is left.
func (r *Run) Finish(s State, shares []Share) (Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	temp := savingDir(r.dir, s.Step)
	if err := r.locked(); err != nil {
		return Info{}, saving(s.Step, err)
	}
	err := checkShares(shares)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return Info{}, saving(s.Step, discard(r.fs, temp, err))
	}
	info, err := r.finish(temp, s, shares)
	return info, saving(s.Step, err)
}

// Discard removes the unfinished checkpoint that Begin created.
func (r *Run) Discard(step int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.locked(); err != nil {
		return err
	}
	return r.fs.RemoveAll(savingDir(r.dir, step))
}

// checkShares rejects shares that don't add up to complete tensors.
func checkShares(shares []Share) error {
	pieces := map[string][]Piece{}
	for _, s := range shares {
		for _, p := range s.Pieces {
			if all := pieces[p.Name]; len(all) > 0 && !slices.Equal(all[0].Shape, p.Shape) {
				return fmt.Errorf("tensor %q: one process has shape %v, another %v", p.Name, all[0].Shape, p.Shape)
			}
			pieces[p.Name] = append(pieces[p.Name], p)
		}
	}
	for name, list := range pieces {
		if err := covers(list, elements(list[0].Shape)); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	return nil
}

// folderPatience is how long WriteShare waits for the folder, whose name may take a while to become
// visible on other machines of a network file system.
const folderPatience = time.Minute

// WriteShare writes what process rank of size holds into the folder that Begin created in the run
// directory, and returns once it is on disk. It holds only a piece of tensors with From or a
// shorter Data. w may be nil.
func WriteShare(runDir string, step int64, rank, size int, model, optimizer []Tensor, w Watch) (Share, error) {
	if w == nil {
		w = unwatched
	}
	fs, temp := watchedFS{osFS{}, w}, savingDir(runDir, step)
	find := func() error {
		defer w("looking for " + temp)()
		_, err := os.Stat(temp)
		return err
	}
	for end := time.Now().Add(folderPatience); ; time.Sleep(50 * time.Millisecond) {
		if err := find(); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) || time.Now().After(end) {
			return Share{}, saving(step, fmt.Errorf("process %d: %w; do all processes see the same run directory?", rank, err))
		}
	}
	suffix := fmt.Sprintf("-rank-%05d-of-%05d", rank, size)
	s, err := writeShare(fs, temp, suffix, maxFileBytes, model, optimizer)
	if err == nil {
		err = fs.SyncDir(temp)
	}
	return s, saving(step, err)
}

// writeShare writes tensors into files of dir, whose names start with the part and suffix.
func writeShare(fs fileSystem, dir, suffix string, maxFile int64, model, optimizer []Tensor) (Share, error) {
	var s Share
	for _, p := range []struct {
		part    string
		tensors []Tensor
	}{{partModel, model}, {partOptimizer, optimizer}} {
		entries := make([]Tensor, len(p.tensors))
		for i, t := range p.tensors {
			if err := t.checkPiece(); err != nil {
				return Share{}, err
			}
			if to := t.From + len(t.Data); len(t.Data) != elements(t.Shape) {
				s.Pieces = append(s.Pieces, Piece{t.Name, t.Shape, t.From, to})
				t = Tensor{Name: pieceName(t.Name, t.From, to), Shape: []int{len(t.Data)}, Data: t.Data}
			}
			entries[i] = t
		}
		if len(entries) == 0 && suffix != "" {
			continue // other processes have all of it
		}
		files := shardTensors(entries, maxFile)
		for i, tensors := range files {
			f, err := writeFile(fs, dir, shardName(p.part+suffix, i, len(files)), func(w io.Writer) error { return writeTensors(w, tensors) })
			if err != nil {
				return Share{}, err
			}
			f.Part = p.part
			s.Files = append(s.Files, f)
		}
	}
	return s, nil
}
