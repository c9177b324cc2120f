package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// File is one file of a folder that WriteFolder makes.
type File struct {
	Name string
	// Write writes the file. It may write in small pieces: its output is buffered.
	Write func(w io.Writer) error
}

// Bytes is a File with the given content.
func Bytes(name string, content []byte) File {
	return File{name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	}}
}

// WriteFolder writes files, in order, into the folder dir, which must be empty or not exist. The
// folder appears complete and durable, or not at all. What killed processes that were writing it left
// beside it is removed; recovered says so, one line each. If another process is writing the folder,
// the error wraps ErrInUse.
func WriteFolder(dir string, files []File) (recovered []string, err error) {
	return writeFolder(osFS{}, dir, files)
}

func writeFolder(fs fileSystem, dir string, files []File) (recovered []string, err error) {
	seen := map[string]bool{}
	for _, f := range files {
		if !isFileName(f.Name) || seen[f.Name] {
			return nil, fmt.Errorf("file %q: not a name, or given twice", f.Name)
		}
		seen[f.Name] = true
	}
	// Absolute, so that "." has a parent and a name.
	out, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if out, err = wholefile.Behind(out); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(out)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case len(entries) > 0:
		return nil, notEmpty(entries)
	}
	parent := filepath.Dir(out)
	if err := mkdirAll(fs, parent); err != nil {
		return nil, err
	}
	beside := filepath.Join(parent, "."+filepath.Base(out)+writingSuffix)
	lock, err := lockAt(beside)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", beside, err)
	}
	if lock == nil {
		return nil, fmt.Errorf("the folder is %w by another process, which writes it; choose another, or wait", ErrInUse)
	}
	defer func() {
		os.Remove(beside) // while it is held: later, it may be another process's. Windows keeps it
		err = errors.Join(err, lock.Unlock())
	}()
	if recovered, err = removeUnfinished(fs, beside); err != nil {
		return nil, err
	}
	// The number keeps writers apart if the file system keeps no locks between machines.
	temp := wholefile.Numbered(beside+"-", "")
	return recovered, fillAndRename(fs, temp, out, exists, files)
}

// writingSuffix ends the name of the file that is locked while a folder is written. The folder that
// will be renamed has a number after it.
const writingSuffix = ".writing"

// removeUnfinished removes the folders that killed processes left, whose names are `beside`, a hyphen and
// 16 hexadecimal digits. No other process may be writing one. One that can't be removed is in nobody's
// way, and is told of.
func removeUnfinished(fs fileSystem, beside string) (lines []string, err error) {
	parent, prefix := filepath.Dir(beside), filepath.Base(beside)+"-"
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !wholefile.IsNumbered(e.Name(), prefix, "") || !e.IsDir() {
			continue
		}
		path := filepath.Join(parent, e.Name())
		if err := fs.RemoveAll(path); err != nil {
			lines = append(lines, fmt.Sprintf("%s: left over from a write that was interrupted, and can't be removed: %v; remove it", path, err))
		} else {
			lines = append(lines, fmt.Sprintf("%s: removed, left over from a write that was interrupted", path))
		}
	}
	return lines, nil
}

// fillAndRename writes files into the folder temp and gives it the name out, which is free or, if exists,
// that of an empty folder.
func fillAndRename(fs fileSystem, temp, out string, exists bool, files []File) error {
	err := fillFolder(fs, temp, files)
	if err == nil && exists {
		err = os.Remove(out) // fails, as it should, if the folder has been filled in the meantime
	}
	if err == nil {
		err = fs.Rename(temp, out)
	}
	if err != nil {
		if entries, _ := os.ReadDir(out); len(entries) > 0 { // another process was faster
			err = notEmpty(entries)
		}
		return discard(fs, temp, err)
	}
	return fs.SyncDir(filepath.Dir(out))
}

func notEmpty(entries []os.DirEntry) error {
	return fmt.Errorf("the folder is not empty (it holds %s); choose another or empty it", entries[0].Name())
}

// MkdirAll makes the folder path, and its parents where they are missing, durably.
func MkdirAll(path string) error { return mkdirAll(osFS{}, path) }

func mkdirAll(fs fileSystem, path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := mkdirAll(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.Mkdir(path); err != nil {
		// Another process may have made it in the meantime.
		if info, statErr := os.Stat(path); statErr != nil || !info.IsDir() {
			return err
		}
	}
	if err := fs.SyncDir(parent); err != nil && !errors.Is(err, os.ErrPermission) { // it may be writable alone
		return err
	}
	return nil
}

// fillFolder writes files into the new folder dir, durably.
func fillFolder(fs fileSystem, dir string, files []File) error {
	if err := fs.Mkdir(dir); err != nil {
		return err
	}
	for _, f := range files {
		if _, err := writeFile(fs, dir, f.Name, f.Write); err != nil {
			return err
		}
	}
	return fs.SyncDir(dir)
}
