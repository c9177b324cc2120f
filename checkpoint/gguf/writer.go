// Package gguf writes GGUF, the format of llama.cpp's models: a header of keys and values, a list
// of tensors, and their data, each at a multiple of 32 bytes.
//
// The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	magic     = "GGUF"
	version   = 3
	alignment = 32
)

// Type is the type of a tensor's elements, by ggml's number.
type Type uint32

// The types that can be written.
const (
	F32  Type = 0
	F16  Type = 1
	Q8_0 Type = 8 // blocks of 32: a scale in float16, and 32 signed bytes
	BF16 Type = 30
)

// BlockSize is the number of elements in a block of Q8_0; rows consist of complete blocks.
const BlockSize = 32

// size returns the number of bytes of n elements.
func (t Type) size(n int64) int64 {
	switch t {
	case F32:
		return 4 * n
	case Q8_0:
		return n / BlockSize * (BlockSize + 2)
	}
	return 2 * n
}

// Tensor is one tensor of a file.
type Tensor struct {
	Name string
	// Shape is as elsewhere in this program, with the width of rows last. In a file it is reversed.
	Shape []int
	Type  Type
	// Write writes the elements, row by row.
	Write func(w io.Writer) error
}

func (t Tensor) bytes() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return t.Type.size(n)
}

// Pair is a key of the header. Value is a string, bool, uint32, int32, float32, []string,
// []int32 or []float32.
type Pair struct {
	Key   string
	Value any
}

// Write writes a complete file.
func Write(w io.Writer, header []Pair, tensors []Tensor) error {
	b := append([]byte(nil), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(header)))
	for _, p := range header {
		b = appendString(b, p.Key)
		var err error
		if b, err = appendValue(b, p.Value); err != nil {
			return fmt.Errorf("key %s: %w", p.Key, err)
		}
	}
	offset := int64(0)
	for _, t := range tensors {
		if len(t.Shape) == 0 || t.Type == Q8_0 && t.Shape[len(t.Shape)-1]%BlockSize != 0 {
			return fmt.Errorf("tensor %s: shape %v can't be of type %d", t.Name, t.Shape, t.Type)
		}
		b = appendString(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Shape)))
		for _, d := range slices.Backward(t.Shape) {
			b = binary.LittleEndian.AppendUint64(b, uint64(d))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(offset))
		offset = aligned(offset + t.bytes())
	}
	b = append(b, make([]byte, aligned(int64(len(b)))-int64(len(b)))...)
	if _, err := w.Write(b); err != nil {
		return err
	}
	for _, t := range tensors {
		c := &counter{w: w}
		if err := t.Write(c); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if c.n != t.bytes() {
			return fmt.Errorf("tensor %s: %d bytes were written, not %d", t.Name, c.n, t.bytes())
		}
		if _, err := w.Write(make([]byte, aligned(c.n)-c.n)); err != nil {
			return err
		}
	}
	return nil
}

func aligned(n int64) int64 { return (n + alignment - 1) / alignment * alignment }

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// The format's numbers for value types.
const (
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
	typeString  = 8
	typeArray   = 9
)

// appendValue appends the number of a value's type, and the value.
func appendValue(b []byte, v any) ([]byte, error) {
	word := binary.LittleEndian.AppendUint32
	switch x := v.(type) {
	case uint32:
		return word(word(b, typeUint32), x), nil
	case int32:
		return word(word(b, typeInt32), uint32(x)), nil
	case float32:
		return word(word(b, typeFloat32), math.Float32bits(x)), nil
	case bool:
		b = word(b, typeBool)
		if x {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case string:
		return appendString(word(b, typeString), x), nil
	case []string:
		b = arrayOf(b, typeString, len(x))
		for _, s := range x {
			b = appendString(b, s)
		}
		return b, nil
	case []int32:
		b = arrayOf(b, typeInt32, len(x))
		for _, n := range x {
			b = word(b, uint32(n))
		}
		return b, nil
	case []float32:
		b = arrayOf(b, typeFloat32, len(x))
		for _, f := range x {
			b = word(b, math.Float32bits(f))
		}
		return b, nil
	}
	return nil, fmt.Errorf("values of type %T are not written", v)
}

func arrayOf(b []byte, elements uint32, n int) []byte {
	b = binary.LittleEndian.AppendUint32(b, typeArray)
	b = binary.LittleEndian.AppendUint32(b, elements)
	return binary.LittleEndian.AppendUint64(b, uint64(n))
}
