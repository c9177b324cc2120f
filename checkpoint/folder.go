package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
// folder appears complete and durable, or not at all.
func WriteFolder(dir string, files []File) error { return writeFolder(osFS{}, dir, files) }

func writeFolder(fs fileSystem, dir string, files []File) error {
	seen := map[string]bool{}
	for _, f := range files {
		if !isFileName(f.Name) || seen[f.Name] {
			return fmt.Errorf("file %q: not a name, or given twice", f.Name)
		}
		seen[f.Name] = true
	}
	// Absolute, so that "." has a parent and a name.
	out, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if out, err = wholefile.Behind(out); err != nil {
		return err
	}
	entries, err := os.ReadDir(out)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case len(entries) > 0:
		return notEmpty(entries)
	}
	parent := filepath.Dir(out)
	if err := mkdirAll(fs, parent); err != nil {
		return err
	}
	// The number keeps writers apart: those of two machines or containers can have the same process id.
	temp := filepath.Join(parent, fmt.Sprintf(".%s.writing-%016x", filepath.Base(out), rand.Uint64()))
	err = fillFolder(fs, temp, files)
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
	return fs.SyncDir(parent)
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
