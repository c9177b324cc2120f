package safetensors

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Set is the tensors of several open files, in which no name may appear twice.
type Set struct {
	files []*File
	in    map[string]*File // by tensor name
}

// OpenSet opens the files at paths.
func OpenSet(paths ...string) (*Set, error) {
	s := &Set{in: map[string]*File{}}
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.files = append(s.files, f)
		for _, e := range f.entries {
			if other := s.in[e.Name]; other != nil {
				return nil, errors.Join(fmt.Errorf("%s: tensor %q is in %s too", path, e.Name, other.name), s.Close())
			}
			s.in[e.Name] = f
		}
	}
	return s, nil
}

// Close closes all files.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Entries lists all tensors by name.
func (s *Set) Entries() []Entry {
	var list []Entry
	for _, f := range s.files {
		list = append(list, f.entries...)
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Entry finds a tensor by name.
func (s *Set) Entry(name string) (Entry, bool) {
	f := s.in[name]
	if f == nil {
		return Entry{}, false
	}
	return f.Entry(name)
}

// ReadFloat32Range is like File.ReadFloat32Range.
func (s *Set) ReadFloat32Range(name string, from int, dst []float32) error {
	f := s.in[name]
	if f == nil {
		return fmt.Errorf("no tensor %q", name)
	}
	return f.ReadFloat32Range(name, from, dst)
}

// ReadAsFloat32 fills dst, which must have exactly the tensor's number of elements, from a tensor
// of dtype F32, BF16 or F16. It preserves all values exactly, and those of dtype F32 bit for bit.
func (s *Set) ReadAsFloat32(name string, dst []float32) error {
	f := s.in[name]
	if f == nil {
		return fmt.Errorf("no tensor %q", name)
	}
	e, _ := f.Entry(name)
	if e.DType == F32 {
		return f.ReadFloat32(name, dst)
	}
	if e.DType != BF16 && e.DType != F16 {
		return fmt.Errorf("%s: tensor %q: dtype is %s; only F32, BF16 and F16 become float32", f.name, name, e.DType)
	}
	raw, err := f.Raw(name)
	if err != nil {
		return err
	}
	if raw.Size() != int64(2*len(dst)) {
		return fmt.Errorf("%s: tensor %q: shape %v has not the %d elements wanted", f.name, name, e.Shape, len(dst))
	}
	buf := make([]byte, min(1<<20, raw.Size()))
	for len(dst) > 0 {
		b := buf[:min(len(buf), 2*len(dst))]
		if _, err := io.ReadFull(raw, b); err != nil {
			return fmt.Errorf("%s: tensor %q: %w", f.name, name, err)
		}
		widen(dst[:len(b)/2], b, e.DType)
		dst = dst[len(b)/2:]
	}
	return nil
}
