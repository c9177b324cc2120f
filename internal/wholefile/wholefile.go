// Package wholefile writes files atomically: complete or not at all.
package wholefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Write writes content to the file at path. It is written to a temporary file in the same folder,
// flushed to disk, and then renamed, so that readers of the path find either the previous content or
// all of the new one. If several processes write it at the same time, the last one wins. If path is a
// link, the file that it leads to is written. The permissions of an existing file are kept.
func Write(path string, content []byte) error {
	return WriteBy(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// WriteBy is Write of what `write` writes. If `write` fails, its error is returned, and the file stays as
// it was.
func WriteBy(path string, write func(io.Writer) error) error {
	to, err := Behind(path)
	if err != nil {
		return err
	}
	f, err := createBeside(to)
	if err != nil {
		return inFile(path, err)
	}
	if info, statErr := os.Stat(to); statErr == nil {
		err = inFile(path, f.Chmod(info.Mode().Perm()))
	}
	if err == nil {
		err = write(named{f, path})
	}
	if err == nil {
		err = inFile(path, f.Sync())
	}
	err = errors.Join(err, inFile(path, f.Close()))
	if err == nil {
		err = inFile(path, os.Rename(f.Name(), to))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// named is a temporary file whose errors name the file that it will be.
type named struct {
	f    *os.File
	path string
}

func (n named) Write(p []byte) (int, error) {
	written, err := n.f.Write(p)
	return written, inFile(n.path, err)
}

// inFile makes an error about a temporary file one about the file at path.
func inFile(path string, err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return &fs.PathError{Op: e.Op, Path: path, Err: e.Err}
	case *os.LinkError:
		return &fs.PathError{Op: "write", Path: path, Err: e.Err}
	}
	return err
}

// SyncDir makes the names in a folder survive a power failure. Windows has no such operation, and some
// network file systems reject it because their names are durable at once.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// RemoveLeft removes what processes that were killed while they wrote the file at path have left, and
// returns its names. No process may be writing the file.
func RemoveLeft(path string) (names []string, err error) {
	to, err := Behind(path)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(to)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !IsNumbered(e.Name(), tempPrefix(name), tempSuffix) || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return names, err
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// A temporary file is hidden, and has a number between its prefix and its suffix.
func tempPrefix(name string) string { return "." + name + "." }

const tempSuffix = ".tmp"

// Numbered returns a name with a random number between prefix and suffix.
func Numbered(prefix, suffix string) string {
	return fmt.Sprintf("%s%016x%s", prefix, rand.Uint64(), suffix)
}

// IsNumbered reports whether Numbered can return the name.
func IsNumbered(name, prefix, suffix string) bool {
	number, before := strings.CutPrefix(name, prefix)
	number, after := strings.CutSuffix(number, suffix)
	_, err := strconv.ParseUint(number, 16, 64)
	return before && after && len(number) == 16 && err == nil
}

// createBeside creates a hidden file next to path that no other process uses. Unlike one of
// os.CreateTemp, it has the permissions of any new file.
func createBeside(path string) (*os.File, error) {
	dir, name := filepath.Split(path)
	for {
		f, err := os.OpenFile(dir+Numbered(tempPrefix(name), tempSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// Behind returns what path leads to if it is a link, and otherwise path: a file or folder that is
// renamed over a link would replace it.
func Behind(path string) (string, error) {
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, nil // if path can't be accessed, writing says why
	}
	to, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: is a link that leads nowhere: make what it leads to, or remove the link", path)
	}
	return to, err
}
