package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// chunk is the amount that is hashed and written at a time: large relative to the cost of a write
// call, small enough for its second reader to find it in the cache.
const chunk = 1 << 20

// summedWriter hashes what it writes. Hashing and writing of each chunk run in parallel, because
// each alone is about as fast as a good disk.
type summedWriter struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

func (s *summedWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		c := p[:min(len(p), chunk)]
		p = p[len(c):]
		var hashing sync.WaitGroup
		hashing.Go(func() { s.hash.Write(c) })
		n, err := s.w.Write(c)
		hashing.Wait()
		written += n
		if err != nil {
			return written, err
		}
	}
	s.size += int64(written)
	return written, nil
}

// writeFile creates dir/name, lets write fill it, and returns its record, not yet assigned to a
// part, once the file is on disk.
func writeFile(fs fileSystem, dir, name string, write func(io.Writer) error) (record fileRecord, err error) {
	f, err := fs.Create(filepath.Join(dir, name))
	if err != nil {
		return fileRecord{}, err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	s := &summedWriter{w: f, hash: sha256.New()}
	b := bufio.NewWriterSize(s, chunk)
	if err := write(b); err != nil {
		return fileRecord{}, err
	}
	if err := b.Flush(); err != nil {
		return fileRecord{}, err
	}
	if err := f.Sync(); err != nil {
		return fileRecord{}, err
	}
	return fileRecord{Name: name, Size: s.size, SHA256: hex.EncodeToString(s.hash.Sum(nil))}, nil
}

// writeBytes is writeFile for a small file.
func writeBytes(fs fileSystem, dir, name string, content []byte) (fileRecord, error) {
	return writeFile(fs, dir, name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

func openToVerify(w Watch, path string) (*os.File, error) {
	defer w.reads(path)()
	return os.Open(path)
}

// verifyFile compares a file with its record.
func verifyFile(w Watch, dir string, want fileRecord) error {
	path := filepath.Join(dir, want.Name)
	f, err := openToVerify(w, path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() != want.Size {
		return fmt.Errorf("%s: %d bytes, the manifest says %d", path, info.Size(), want.Size)
	}
	h := sha256.New()
	// Not f itself, whose WriteTo would copy through its own small buffer.
	if _, err := io.CopyBuffer(h, watchedReader{f, w}, make([]byte, max(1, min(chunk, want.Size)))); err != nil {
		return err
	}
	return want.compare(path, hex.EncodeToString(h.Sum(nil)))
}

// compare compares the checksum of the file at path with its record.
func (want fileRecord) compare(path, sum string) error {
	if sum != want.SHA256 {
		return fmt.Errorf("%s: SHA-256 is %s, the manifest says %s; the file is corrupt", path, sum, want.SHA256)
	}
	return nil
}
