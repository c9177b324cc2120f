package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrNoCheckpoint is wrapped by Newest's error when no checkpoint of the run verifies.
var ErrNoCheckpoint = errors.New("no checkpoint to load")

// Skipped is a checkpoint that Newest skipped, and why.
type Skipped struct {
	Info
	Err error
}

// List returns the checkpoints of a run, ascending by step, without verifying them. The list is
// empty for a run that has not saved any yet.
func List(runDir string) ([]Info, error) {
	if _, err := os.Stat(runDir); err != nil {
		return nil, err
	}
	root := filepath.Join(runDir, checkpointsDir)
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, e := range entries {
		step, ok := parseStep(e.Name())
		if !ok {
			continue
		}
		infos = append(infos, inspect(filepath.Join(root, e.Name()), step))
	}
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.Step, b.Step) })
	return infos, nil
}

// Is reports whether dir is a checkpoint's folder.
func Is(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, manifestSumFile))
	return err == nil
}

// inspect summarizes a folder. Anything that cannot be read is not counted; verifying the folder
// will say why.
func inspect(dir string, step int64) Info {
	info := Info{Dir: dir, Step: step}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if fi, err := f.Info(); err == nil {
			info.Bytes += fi.Size()
		}
	}
	return info
}

// Verify reads every file of the checkpoint folder dir and checks its size, its SHA-256 and its
// format. The error names the first file that is wrong.
func Verify(dir string) error {
	_, err := verify(nil, dir)
	return err
}

func verify(w Watch, dir string) (manifest, error) {
	m, err := readManifest(w, dir)
	if err != nil {
		return manifest{}, err
	}
	if err := verifyFiles(w, dir, m.Files); err != nil {
		return manifest{}, err
	}
	missing := maps.Clone(m.Pieces)
	for _, part := range []string{partModel, partOptimizer} {
		t, err := openTensors(w, dir, part, m.Files, m.Pieces)
		if err != nil {
			return manifest{}, err
		}
		for name := range t.pieces {
			delete(missing, name)
		}
		if err := t.Close(); err != nil {
			return manifest{}, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		return manifest{}, fmt.Errorf("%s: tensor %q: its pieces are in no file", dir, name)
	}
	return m, nil
}

// verifyFiles compares files with their records, several at once: hashing a file takes longer than
// reading it. The error is that of the first file in the list that is wrong.
func verifyFiles(w Watch, dir string, files []fileRecord) error {
	return firstError(files, func(r fileRecord) error { return verifyFile(w, dir, r) })
}

// Newest loads the newest checkpoint of a run that verifies. Every newer one that does not is in
// the Skipped list, newest first, for the caller to report: its steps are lost. If none verifies
// the error wraps ErrNoCheckpoint, and an empty Skipped list says that the run never saved any. One
// that this process can't read, which doesn't mean that it is damaged, is an error.
//
// The run may continue in the meantime and remove a checkpoint while it is being read: then there
// is a newer one to look for.
func Newest(runDir string) (*Checkpoint, []Skipped, error) { return Opener{}.Newest(runDir) }

// Newest is the function of that name.
func (o Opener) Newest(runDir string) (*Checkpoint, []Skipped, error) {
	const looks = 10
	for range looks - 1 {
		c, skipped, err := o.look(runDir)
		if !slices.ContainsFunc(skipped, func(s Skipped) bool { return Gone(s.Dir) }) {
			return c, skipped, err
		}
	}
	return o.look(runDir)
}

// Gone reports whether a checkpoint's folder no longer exists.
func Gone(dir string) bool {
	_, err := os.Stat(dir)
	return errors.Is(err, os.ErrNotExist)
}

func (o Opener) look(runDir string) (*Checkpoint, []Skipped, error) {
	infos, err := List(runDir)
	if err != nil {
		return nil, nil, err
	}
	var skipped []Skipped
	for _, info := range slices.Backward(infos) {
		c, err := o.Load(info.Dir)
		if err == nil {
			return c, skipped, nil
		}
		if Refused(err) {
			return nil, skipped, fmt.Errorf("%s: can't be read, which does not mean that it is damaged: %w; make it readable, or delete it to use the one before", info.Dir, err)
		}
		skipped = append(skipped, Skipped{info, err})
	}
	if len(skipped) > 0 {
		return nil, skipped, fmt.Errorf("%s: %w: none of its %d verifies", runDir, ErrNoCheckpoint, len(skipped))
	}
	return nil, nil, fmt.Errorf("%s: %w: the run has saved none yet", runDir, ErrNoCheckpoint)
}

// Refused reports whether an error is about this process rather than about a checkpoint's file, which
// may be good: it may not read it, has too many open or no memory left, or the file server doesn't
// answer.
func Refused(err error) bool {
	return slices.ContainsFunc([]error{os.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ETIMEDOUT},
		func(target error) bool { return errors.Is(err, target) })
}

// RunOf returns the run directory of the checkpoint in folder dir, and the folder's own name. dir
// may be a link, or a path from within the run: then the directory's path is absolute.
func RunOf(dir string) (run, name string, err error) {
	dir = filepath.Clean(dir)
	real, err := filepath.EvalSymlinks(dir)
	if names := strings.Split(dir, string(filepath.Separator)); err == nil && (real != dir || len(names) < 3 || names[0] == "..") {
		real, err = filepath.Abs(real)
	}
	return filepath.Dir(filepath.Dir(real)), filepath.Base(real), err
}
