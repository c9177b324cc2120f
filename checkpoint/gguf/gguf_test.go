package gguf

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/x448/float16"
)

// content returns a tensor's Write that writes known bytes.
func content(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

// TestLayout checks a small file against the format, byte by byte.
func TestLayout(t *testing.T) {
	var got bytes.Buffer
	err := Write(&got, []Pair{{"a", uint32(7)}, {"b", []string{"x", ""}}, {"c", true}, {"d", float32(1.5)}, {"e", []int32{-1}}},
		[]Tensor{{"w", []int{2, 3}, F16, content(make([]byte, 12))}, {"v", []int{1}, F32, content([]byte{1, 2, 3, 4})}})
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				binary.Write(&want, binary.LittleEndian, uint64(len(s)))
				want.WriteString(s)
			} else {
				binary.Write(&want, binary.LittleEndian, v)
			}
		}
	}
	want.WriteString("GGUF")
	put(uint32(3), uint64(2), uint64(5))
	put("a", uint32(4), uint32(7), "b", uint32(9), uint32(8), uint64(2), "x", "", "c", uint32(7), true,
		"d", uint32(6), float32(1.5), "e", uint32(9), uint32(5), uint64(1), int32(-1))
	// Dimensions are reversed, and every tensor starts at a multiple of 32.
	put("w", uint32(2), uint64(3), uint64(2), uint32(1), uint64(0), "v", uint32(1), uint64(1), uint32(0), uint64(32))
	for want.Len()%32 != 0 {
		want.WriteByte(0)
	}
	want.Write(make([]byte, 32))
	want.Write([]byte{1, 2, 3, 4})
	want.Write(make([]byte, 28))
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("wrote\n%q, want\n%q", got.Bytes(), want.Bytes())
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		header  []Pair
		tensors []Tensor
		want    string
	}{
		{[]Pair{{"k", 3}}, nil, "key k: values of type int are not written"},
		{nil, []Tensor{{"w", []int{2, 33}, Q8_0, nil}}, "tensor w: shape [2 33] can't be of type 8"},
		{nil, []Tensor{{"w", nil, F32, nil}}, "tensor w: shape [] can't be"},
		{nil, []Tensor{{"w", []int{2}, F32, content(make([]byte, 4))}}, "tensor w: 4 bytes were written, not 8"},
	} {
		if err := Write(io.Discard, c.header, c.tensors); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want %q", err, c.want)
		}
	}
}

// TestQ8_0: values that are read back are within half a step of each block's scale.
func TestQ8_0(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, 4*BlockSize)
	for i := range x[:3*BlockSize] {
		x[i] = float32(rng.NormFloat64() * math.Pow(10, float64(i/BlockSize)))
	}
	x[5] = -40 // the largest magnitude of its block, negative
	b, err := AppendQ8_0(nil, x)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != Q8_0.size(int64(len(x))) {
		t.Fatalf("%d bytes", len(b))
	}
	for i, want := range x {
		block := b[i/BlockSize*(BlockSize+2):]
		scale := float16.Frombits(binary.LittleEndian.Uint16(block)).Float32()
		got := scale * float32(int8(block[2+i%BlockSize]))
		// The scale itself is rounded to float16.
		if limit := float64(scale)*0.501 + math.Abs(float64(want))/1024; !(math.Abs(float64(got-want)) <= limit) {
			t.Errorf("%d is %v, was %v (scale %v)", i, got, want, scale)
		}
	}
}

// TestQ8_0Limits: what a block's scale can't represent is zero if it is too small, and refused if it
// is too large or no number.
func TestQ8_0Limits(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		largest float32
		want    string // of the error
	}{
		{8e6, ""}, {9e6, "9e+06 is beyond q8_0's largest number, 8.319008e+06"}, {-9e6, "9e+06 is beyond"}, {inf, "+Inf can't be written as q8_0"},
		{float32(math.NaN()), "NaN can't be written as q8_0"}, {1e-9, ""}, {1e-40, ""}, {math.SmallestNonzeroFloat32, ""},
	} {
		x := make([]float32, BlockSize)
		x[3] = c.largest
		b, err := AppendQ8_0(nil, x)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: error is %v, want %q", c.largest, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if scale := float16.Frombits(binary.LittleEndian.Uint16(b)).Float32(); scale == 0 && !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%v: %v, want zeros", c.largest, b)
		}
	}
}
