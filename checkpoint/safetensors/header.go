// Package safetensors reads and writes the safetensors format: named tensors of plain numbers in
// one file, which cannot contain code.
//
// A file is an 8-byte little-endian header length, a JSON header, and the tensors' bytes, little-endian and row-major.
// The format: https://huggingface.co/docs/safetensors.
package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxHeader is the format's own limit on the JSON header's length in bytes.
	maxHeader = 100_000_000

	// metadataKey is the only key of the header that doesn't name a tensor.
	metadataKey = "__metadata__"
)

// Entry describes one tensor of a file.
type Entry struct {
	Name  string
	DType DType
	Shape []int // empty for a scalar

	begin, end int64 // bytes within the data section
}

// Bytes returns the size of the tensor's data, or 0 if type or shape make no sense.
func (e Entry) Bytes() int64 {
	n, err := byteSize(e.DType, e.Shape)
	if err != nil {
		return 0
	}
	return n
}

// byteSize computes a tensor's size from its type and shape.
func byteSize(d DType, shape []int) (int64, error) {
	size := uint64(d.Size())
	if size == 0 {
		return 0, fmt.Errorf("unknown dtype %q", string(d))
	}
	// With a zero dimension the others must fit as well: their products are the strides of whoever
	// loads this.
	empty := false
	for _, n := range shape {
		if n < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if n == 0 {
			empty = true
			continue
		}
		hi, lo := bits.Mul64(size, uint64(n))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		size = lo
	}
	if empty {
		return 0, nil
	}
	return int64(size), nil
}

// encodeHeader lays out the entries in the given order, sets their offsets, and returns the length
// prefix and the header, padded with spaces so that the data starts at a multiple of 8.
func encodeHeader(entries []Entry, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(metadata) > 0 {
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, fmt.Errorf("metadata %q is not valid UTF-8", k)
			}
		}
		writeJSON(&b, metadataKey)
		b.WriteByte(':')
		writeJSON(&b, metadata)
	}
	if err := place(entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		writeJSON(&b, e.Name)
		b.WriteByte(':')
		writeJSON(&b, struct {
			DType   DType    `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{e.DType, append([]int{}, e.Shape...), [2]int64{e.begin, e.end}})
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - 8
	if n > maxHeader {
		return nil, fmt.Errorf("the header would take %d bytes, the format's limit is %d", n, maxHeader)
	}
	header := b.Bytes()
	for i := range 8 {
		header[i] = byte(n >> (8 * i))
	}
	return header, nil
}

// place sets the offsets of entries, one after the other, and checks their names and shapes.
func place(entries []Entry) error {
	offset := int64(0)
	seen := make(map[string]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Name == metadataKey:
			return fmt.Errorf("tensor %q: the name is reserved", e.Name)
		case !utf8.ValidString(e.Name):
			return fmt.Errorf("tensor %q: the name is not valid UTF-8", e.Name)
		case seen[e.Name]:
			return fmt.Errorf("tensor %q: given twice", e.Name)
		}
		seen[e.Name] = true
		size, err := byteSize(e.DType, e.Shape)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", e.Name, err)
		}
		if size > math.MaxInt64-offset {
			return fmt.Errorf("tensor %q: the file's size overflows", e.Name)
		}
		e.begin, e.end = offset, offset+size
		offset = e.end
	}
	return nil
}

// writeJSON appends v without encoding/json's escaping for HTML. v must be of a type that can
// always be encoded.
func writeJSON(b *bytes.Buffer, v any) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	b.Truncate(b.Len() - 1) // the newline that Encode adds
}

// parseHeader decodes the JSON header of a file whose data section has dataSize bytes, and checks
// that the tensors fill the data section without overlaps or gaps. It returns the entries in the
// order of their data.
func parseHeader(header []byte, dataSize int64) ([]Entry, map[string]string, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, errors.New("header does not start with '{'")
	}
	if !utf8.Valid(header) {
		return nil, nil, errors.New("header is not valid UTF-8")
	}
	if !json.Valid(header) {
		return nil, nil, errors.New("header is not valid JSON")
	}
	p := parser{json.NewDecoder(bytes.NewReader(header))}
	p.dec.UseNumber()

	var entries []Entry
	var metadata map[string]string
	err := p.object(func(key string) error {
		if key == metadataKey {
			metadata = map[string]string{}
			if err := p.object(func(k string) (err error) {
				metadata[k], err = p.string()
				return err
			}); err != nil {
				return fmt.Errorf("%s: %w", metadataKey, err)
			}
			return nil
		}
		e, err := p.entry(key)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", key, err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}

	// Empty tensors take no space and sort before the tensor that starts at the same offset.
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.Name, b.Name))
	})
	end := int64(0)
	for _, e := range entries {
		switch {
		case e.begin < end:
			return nil, nil, fmt.Errorf("tensor %q: data [%d, %d) overlaps another tensor's, which ends at %d", e.Name, e.begin, e.end, end)
		case e.begin > end:
			return nil, nil, fmt.Errorf("tensor %q: data [%d, %d) leaves a hole after byte %d", e.Name, e.begin, e.end, end)
		case e.end > dataSize:
			return nil, nil, fmt.Errorf("tensor %q: data [%d, %d) reaches past the file's %d bytes of data; the file is truncated", e.Name, e.begin, e.end, dataSize)
		}
		end = e.end
	}
	if end != dataSize {
		return nil, nil, fmt.Errorf("%d bytes after the last tensor", dataSize-end)
	}
	return entries, metadata, nil
}

// parser reads a header token by token, because decoding into maps would hide duplicate keys.
type parser struct{ dec *json.Decoder }

// object reads an object and calls value once per key to read that key's value.
func (p parser) object(value func(key string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.dec.More() {
		key, err := p.string()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %q appears twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	return p.delim('}')
}

func (p parser) entry(name string) (Entry, error) {
	e := Entry{Name: name}
	var haveDType, haveShape, haveOffsets bool
	err := p.object(func(key string) error {
		switch key {
		case "dtype":
			haveDType = true
			s, err := p.string()
			if err != nil {
				return fmt.Errorf("dtype: %w", err)
			}
			e.DType = DType(s)
		case "shape":
			haveShape = true
			dims, err := p.integers()
			if err != nil {
				return fmt.Errorf("shape: %w", err)
			}
			e.Shape = make([]int, len(dims))
			for i, n := range dims {
				if n > math.MaxInt {
					return fmt.Errorf("shape: %d overflows", n)
				}
				e.Shape[i] = int(n)
			}
		case "data_offsets":
			haveOffsets = true
			offsets, err := p.integers()
			if err != nil {
				return fmt.Errorf("data_offsets: %w", err)
			}
			if len(offsets) != 2 || offsets[0] > offsets[1] {
				return fmt.Errorf("data_offsets: want [begin, end] with begin <= end, got %v", offsets)
			}
			e.begin, e.end = offsets[0], offsets[1]
		default:
			return fmt.Errorf("unknown key %q", key)
		}
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	if !haveDType || !haveShape || !haveOffsets {
		return Entry{}, errors.New("dtype, shape and data_offsets must all be given")
	}
	size, err := byteSize(e.DType, e.Shape)
	if err != nil {
		return Entry{}, err
	}
	if size != e.end-e.begin {
		return Entry{}, fmt.Errorf("%s of shape %v takes %d bytes, data_offsets [%d, %d) hold %d", e.DType, e.Shape, size, e.begin, e.end, e.end-e.begin)
	}
	return e, nil
}

// integers reads an array of non-negative integers.
func (p parser) integers() ([]int64, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	var out []int64
	for p.dec.More() {
		t, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("want a number, got %v", t)
		}
		n, err := strconv.ParseUint(number.String(), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("want an integer of at most 63 bits and not negative, got %s", number)
		}
		out = append(out, int64(n))
	}
	return out, p.delim(']')
}

func (p parser) string() (string, error) {
	t, err := p.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("want a string, got %v", t)
	}
	return s, nil
}

func (p parser) delim(want json.Delim) error {
	t, err := p.dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("want %q, got %v", want.String(), t)
	}
	return nil
}
