// Package wholefile writes files atomically: complete or not at all.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Write writes content to the file at path. It is written to a temporary file in the same folder,
// flushed to disk, and then renamed, so that readers of the path find either the previous content or
// all of the new one. If several processes write it at the same time, the last one wins. If path is a
// link, the file that it leads to is written. The permissions of an existing file are kept.
func Write(path string, content []byte) error {
	to, err := Behind(path)
	if err != nil {
		return err
	}
	f, err := createBeside(to)
	if err != nil {
		return err
	}
	if info, statErr := os.Stat(to); statErr == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// createBeside creates a hidden file next to path that no other process uses. Unlike one of
// os.CreateTemp, it has the permissions of any new file.
func createBeside(path string) (*os.File, error) {
	dir, name := filepath.Split(path)
	for {
		f, err := os.OpenFile(fmt.Sprintf("%s.%s.%016x.tmp", dir, name, rand.Uint64()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
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
