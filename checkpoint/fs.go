package checkpoint

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
)

// fileSystem is every operation by which a checkpoint reaches the disk, so that tests can make each of them fail.
type fileSystem interface {
	Mkdir(path string) error
	Create(path string) (file, error) // fails when path exists
	SyncDir(path string) error
	Rename(from, to string) error
	RemoveAll(path string) error
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

type osFS struct{}

func (osFS) Mkdir(path string) error { return os.Mkdir(path, 0o777) }

func (osFS) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// SyncDir makes the names in a folder durable. Windows has no such operation, and some network file systems refuse it
// because their names are durable at once.
func (osFS) SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
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

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) RemoveAll(path string) error { return os.RemoveAll(path) }
