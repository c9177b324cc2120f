package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// File is an open safetensors file whose header has been checked completely. Its methods may be
// called concurrently.
type File struct {
	name     string
	r        io.ReaderAt
	close    func() error
	data     int64 // where the data section starts
	entries  []Entry
	index    map[string]int
	metadata map[string]string
}

// Open opens the file at path and checks its header.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	file, err := NewFile(f, info.Size(), path)
	if err != nil {
		f.Close()
		return nil, err
	}
	file.close = f.Close
	return file, nil
}

// NewFile reads a safetensors file of size bytes from r; errors use name for it. The memory
// allocated for the header is limited by size.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	if size < 8 {
		return nil, fmt.Errorf("%s: %d bytes is too short for a safetensors file", name, size)
	}
	var prefix [8]byte
	if err := readAt(r, prefix[:], 0); err != nil {
		return nil, fmt.Errorf("%s: header length: %w", name, err)
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		return nil, fmt.Errorf("%s: header length %d is above the format's limit of %d; not a safetensors file", name, n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("%s: header length %d reaches past the file's %d bytes; the file is truncated", name, n, size)
	}
	header := make([]byte, n)
	if err := readAt(r, header, 8); err != nil {
		return nil, fmt.Errorf("%s: header: %w", name, err)
	}
	data := 8 + int64(n)
	entries, metadata, err := parseHeader(header, size-data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	index := make(map[string]int, len(entries))
	for i, e := range entries {
		index[e.Name] = i
	}
	return &File{
		name: name, r: r, close: func() error { return nil },
		data: data, entries: entries, index: index, metadata: metadata,
	}, nil
}

// readAt fills dst from offset off; a complete read that also reaches the end of the file is a
// success.
func readAt(r io.ReaderAt, dst []byte, off int64) error {
	n, err := r.ReadAt(dst, off)
	switch {
	case n == len(dst):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	default:
		return err
	}
}

// Close closes the file that Open opened.
func (f *File) Close() error { return f.close() }

// Entries lists the tensors in the order of their data.
func (f *File) Entries() []Entry { return slices.Clone(f.entries) }

// Entry finds a tensor by name.
func (f *File) Entry(name string) (Entry, bool) {
	i, ok := f.index[name]
	if !ok {
		return Entry{}, false
	}
	return f.entries[i], true
}

// Metadata returns the header's __metadata__ map, or nil if it has none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Raw returns a tensor's bytes as stored in the file.
func (f *File) Raw(name string) (*io.SectionReader, error) {
	e, ok := f.Entry(name)
	if !ok {
		return nil, fmt.Errorf("%s: no tensor %q", f.name, name)
	}
	return io.NewSectionReader(f.r, f.data+e.begin, e.Bytes()), nil
}

// Read fills dst, which must have exactly the tensor's size, with its bytes as stored in the file.
func (f *File) Read(name string, dst []byte) error {
	e, ok := f.Entry(name)
	if !ok {
		return fmt.Errorf("%s: no tensor %q", f.name, name)
	}
	if int64(len(dst)) != e.Bytes() {
		return fmt.Errorf("%s: tensor %q: shape %v of %s takes %d bytes, the buffer has %d", f.name, name, e.Shape, e.DType, e.Bytes(), len(dst))
	}
	return f.part(e, 0, dst)
}

// part fills dst with a tensor's bytes, starting at offset `from`.
func (f *File) part(e Entry, from int64, dst []byte) error {
	if err := readAt(f.r, dst, f.data+e.begin+from); err != nil {
		return fmt.Errorf("%s: tensor %q: %w", f.name, e.Name, err)
	}
	return nil
}

// ReadFloat32 fills dst, which must have exactly the tensor's number of elements, from a tensor of
// dtype F32. It preserves all bits, including those of NaNs.
func (f *File) ReadFloat32(name string, dst []float32) error {
	return f.read4(name, F32, bytesOf(dst))
}

// ReadFloat32Range fills dst with elements starting at `from`, in row-major order, of a tensor of
// dtype F32. It preserves all bits.
func (f *File) ReadFloat32Range(name string, from int, dst []float32) error {
	e, ok := f.Entry(name)
	switch {
	case !ok:
		return fmt.Errorf("%s: no tensor %q", f.name, name)
	case e.DType != F32:
		return fmt.Errorf("%s: tensor %q: dtype is %s, want %s", f.name, name, e.DType, F32)
	case from < 0 || int64(from) > e.Bytes()/4-int64(len(dst)):
		return fmt.Errorf("%s: tensor %q: shape %v has no %d elements from %d on", f.name, name, e.Shape, len(dst), from)
	}
	raw := bytesOf(dst)
	if err := f.part(e, 4*int64(from), raw); err != nil {
		return err
	}
	if !littleEndian {
		swap4(raw)
	}
	return nil
}

// ReadInt32 fills dst, which must have exactly the tensor's number of elements, from a tensor of dtype I32.
func (f *File) ReadInt32(name string, dst []int32) error {
	return f.read4(name, I32, bytesOf(dst))
}

// read4 reads a tensor of 4-byte elements of type want into dst, in the machine's byte order.
func (f *File) read4(name string, want DType, dst []byte) error {
	if e, ok := f.Entry(name); ok && e.DType != want {
		return fmt.Errorf("%s: tensor %q: dtype is %s, want %s", f.name, name, e.DType, want)
	}
	if err := f.Read(name, dst); err != nil {
		return err
	}
	if !littleEndian {
		swap4(dst)
	}
	return nil
}
