package graph

import (
	"fmt"
	"slices"
	"strings"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types that a tensor may have.
const (
	Float32 DType = iota
	Int32
	BFloat16
	// Float24 is a float32 without its last 8 bits, in two planes: the bfloat16 of all elements,
	// rounded to nearest even, and then a signed byte per element that is added to its bits. Its
	// rows are dense. Only plans in mixed precision use it; see Spec.Unrounded.
	Float24
)

// Size is the size of an element in bytes.
func (t DType) Size() int {
	switch t {
	case BFloat16:
		return 2
	case Float24:
		return 3
	}
	return 4
}

func (t DType) String() string {
	switch t {
	case Float32:
		return "float32"
	case Int32:
		return "int32"
	case BFloat16:
		return "bfloat16"
	case Float24:
		return "float24"
	}
	return fmt.Sprintf("DType(%d)", uint8(t))
}

// Shape is a tensor's sizes, outermost first. The empty shape is that of a scalar.
type Shape []int

// Size is the number of elements.
func (s Shape) Size() int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

// maxSize bounds the number of elements, so that no product or sum of sizes overflows.
const maxSize = 1 << 40

// check rejects shapes that no tensor can have.
func (s Shape) check() error {
	n := 1
	for i, d := range s {
		if d <= 0 {
			return fmt.Errorf("dimension %d of %v must be positive", i, s)
		}
		if d > maxSize/n {
			return fmt.Errorf("%v has too many elements; at most %d", s, maxSize)
		}
		n *= d
	}
	return nil
}

// Cols is the length of the last dimension, 1 for a scalar.
func (s Shape) Cols() int {
	if len(s) == 0 {
		return 1
	}
	return s[len(s)-1]
}

// Rows is the product of all dimensions but the last, 1 for a scalar.
func (s Shape) Rows() int {
	if len(s) == 0 {
		return 1
	}
	return s[:len(s)-1].Size()
}

// Equal reports whether both shapes have the same dimensions.
func (s Shape) Equal(o Shape) bool { return slices.Equal(s, o) }

func (s Shape) String() string {
	parts := make([]string, len(s))
	for i, d := range s {
		parts[i] = fmt.Sprint(d)
	}
	return "[" + strings.Join(parts, " ") + "]"
}
