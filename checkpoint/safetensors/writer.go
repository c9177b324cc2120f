package safetensors

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Writer writes a safetensors file as a stream: the header first, then each tensor's data in the
// order of Entries. It doesn't buffer, so give it a buffered writer if there are many small
// tensors.
type Writer struct {
	w       io.Writer
	entries []Entry
	next    int   // the entry being written
	written int64 // bytes of that entry written so far
}

// NewWriter writes the header for the given tensors and metadata (which may be nil). The tensors are laid out by
// element size, largest first, so that each is aligned to its elements, and by name within a size.
func NewWriter(w io.Writer, entries []Entry, metadata map[string]string) (*Writer, error) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), strings.Compare(a.Name, b.Name))
	})
	header, err := encodeHeader(entries, metadata)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, err
	}
	return &Writer{w: w, entries: entries}, nil
}

// Entries lists the tensors in the order in which their data must be written.
func (w *Writer) Entries() []Entry { return slices.Clone(w.entries) }

// Write appends p, the next little-endian bytes of the named tensor. A tensor may come in several
// pieces; the next one starts when it is complete.
func (w *Writer) Write(name string, p []byte) error {
	w.skipFull(name)
	if w.next == len(w.entries) {
		return fmt.Errorf("tensor %q: not expected, all tensors are written", name)
	}
	e := w.entries[w.next]
	if e.Name != name {
		return fmt.Errorf("tensor %q: written before %q is full (%d of %d bytes)", name, e.Name, w.written, e.Bytes())
	}
	if left := e.Bytes() - w.written; int64(len(p)) > left {
		return fmt.Errorf("tensor %q: %d bytes where %d of its %d are left", name, len(p), left, e.Bytes())
	}
	n, err := w.w.Write(p)
	w.written += int64(n)
	if err != nil {
		return fmt.Errorf("tensor %q: %w", name, err)
	}
	return nil
}

// WriteFloat32 is Write for a tensor of dtype F32. It preserves all bits, including those of NaNs.
func (w *Writer) WriteFloat32(name string, data []float32) error {
	return w.write4(name, F32, bytesOf(data))
}

// WriteInt32 is Write for a tensor of dtype I32.
func (w *Writer) WriteInt32(name string, data []int32) error {
	return w.write4(name, I32, bytesOf(data))
}

// write4 writes 4-byte elements of type want, given in the machine's byte order.
func (w *Writer) write4(name string, want DType, p []byte) error {
	w.skipFull(name)
	if w.next < len(w.entries) {
		if e := w.entries[w.next]; e.Name == name && e.DType != want {
			return fmt.Errorf("tensor %q: %s data for a tensor of dtype %s", name, want, e.DType)
		}
	}
	if !littleEndian {
		p = slices.Clone(p)
		swap4(p)
	}
	return w.Write(name, p)
}

// Finish reports a tensor whose data is not complete. It leaves the underlying writer open.
func (w *Writer) Finish() error {
	written := w.written
	for _, e := range w.entries[w.next:] {
		if written < e.Bytes() {
			return fmt.Errorf("tensor %q: only %d of %d bytes were written", e.Name, written, e.Bytes())
		}
		written = 0
	}
	return nil
}

// skipFull skips tensors that are complete, up to the named one: empty tensors are complete from
// the start.
func (w *Writer) skipFull(upTo string) {
	for w.next < len(w.entries) {
		e := w.entries[w.next]
		if e.Name == upTo || w.written < e.Bytes() {
			return
		}
		w.next++
		w.written = 0
	}
}
