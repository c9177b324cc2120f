package data

import (
	"context"
	"os"
)

// Watch is called before each disk operation, with a description of it; the function it returns is
// called after the operation. Several may be in progress at once.
type Watch func(what string) (done func())

type watchKey struct{}

// WithWatch returns a context in which Prepare and Open report their disk operations to w. Waiting
// for another process that prepares the same shards is not one.
func WithWatch(ctx context.Context, w Watch) context.Context {
	return context.WithValue(ctx, watchKey{}, w)
}

// watching is the context's Watch.
func watching(ctx context.Context) Watch {
	if w, ok := ctx.Value(watchKey{}).(Watch); ok {
		return w
	}
	return func(string) func() { return func() {} }
}

// watchedFile watches each operation on a file.
type watchedFile struct {
	file  *os.File
	watch Watch
	what  string
}

func openWatched(w Watch, path string) (*watchedFile, error) {
	return watched(w, "reading "+path, func() (*os.File, error) { return os.Open(path) })
}

func createWatched(w Watch, path string) (*watchedFile, error) {
	return watched(w, "writing "+path, func() (*os.File, error) { return os.Create(path) })
}

func watched(w Watch, what string, open func() (*os.File, error)) (*watchedFile, error) {
	defer w(what)()
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, w, what}, nil
}

func (f *watchedFile) Read(p []byte) (int, error) {
	defer f.watch(f.what)()
	return f.file.Read(p)
}

func (f *watchedFile) ReadAt(p []byte, at int64) (int, error) {
	defer f.watch(f.what)()
	return f.file.ReadAt(p, at)
}

func (f *watchedFile) Seek(offset int64, whence int) (int64, error) {
	defer f.watch(f.what)()
	return f.file.Seek(offset, whence)
}

func (f *watchedFile) Stat() (os.FileInfo, error) {
	defer f.watch(f.what)()
	return f.file.Stat()
}

func (f *watchedFile) Write(p []byte) (int, error) {
	defer f.watch(f.what)()
	return f.file.Write(p)
}

func (f *watchedFile) Sync() error {
	defer f.watch(f.what)()
	return f.file.Sync()
}

func (f *watchedFile) Close() error {
	defer f.watch(f.what)()
	return f.file.Close()
}
