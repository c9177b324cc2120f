package checkpoint

import (
	"io"
	"os"

	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// fileSystem is the set of operations that write a checkpoint to disk, so that tests can make each
// of them fail.
type fileSystem interface {
	Mkdir(path string) error
	Create(path string) (file, error) // fails if path exists
	SyncDir(path string) error
	Rename(from, to string) error
	RemoveAll(path string) error
}

// Watch is called before each operation that writes or reads a checkpoint on disk, with a
// description of it. The function it returns is called after the operation.
type Watch func(what string) (done func())

func unwatched(string) func() { return func() {} }

// watchedFS watches each operation of fs.
type watchedFS struct {
	fs    fileSystem
	watch Watch
}

func (w watchedFS) Mkdir(path string) error {
	defer w.watch("making " + path)()
	return w.fs.Mkdir(path)
}

func (w watchedFS) Create(path string) (file, error) {
	defer w.watch("making " + path)()
	f, err := w.fs.Create(path)
	if err != nil {
		return nil, err
	}
	return watchedFile{f, w.watch, "writing " + path}, nil
}

func (w watchedFS) SyncDir(path string) error {
	defer w.watch("syncing " + path)()
	return w.fs.SyncDir(path)
}

func (w watchedFS) Rename(from, to string) error {
	defer w.watch("renaming " + from)()
	return w.fs.Rename(from, to)
}

func (w watchedFS) RemoveAll(path string) error {
	defer w.watch("removing " + path)()
	return w.fs.RemoveAll(path)
}

type watchedFile struct {
	file
	watch Watch
	what  string
}

func (w watchedFile) Write(p []byte) (int, error) {
	defer w.watch(w.what)()
	return w.file.Write(p)
}

func (w watchedFile) Sync() error {
	defer w.watch(w.what)()
	return w.file.Sync()
}

func (w watchedFile) Close() error {
	defer w.watch(w.what)()
	return w.file.Close()
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

func (osFS) SyncDir(path string) error { return wholefile.SyncDir(path) }

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) RemoveAll(path string) error { return os.RemoveAll(path) }
