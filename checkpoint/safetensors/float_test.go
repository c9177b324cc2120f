package safetensors

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFloats: numbers with fewer bits are the nearest ones, ties to even, and are read back
// exactly.
func TestFloats(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		d        DType
		in, want float32
	}{
		{F32, 1.1, 1.1}, {F32, inf, inf},
		{BF16, 1, 1}, {BF16, 1 + 1.0/256, 1}, {BF16, 1 + 3.0/256, 1 + 4.0/256}, {BF16, -1.01, -1.0078125}, {BF16, inf, inf}, {BF16, nan, nan},
		{F16, 1, 1}, {F16, 1 + 1.0/2048, 1}, {F16, 1 + 3.0/2048, 1 + 4.0/2048}, {F16, 65504, 65504}, {F16, 1e-8, 0}, {F16, 6e-8, 5.9604645e-08}, {F16, inf, inf}, {F16, nan, nan},
	} {
		raw, err := AppendFloats(nil, c.d, []float32{c.in})
		if err != nil {
			t.Fatal(err)
		}
		got := readBack(t, c.d, raw)
		if got != c.want && !(got != got && c.want != c.want) {
			t.Errorf("%s: %v became %v, want %v", c.d, c.in, got, c.want)
		}
	}
	if _, err := AppendFloats(nil, F16, []float32{65520}); err == nil || !strings.Contains(err.Error(), "65504; use bfloat16") {
		t.Errorf("too large for F16: %v", err)
	}
	if _, err := AppendFloats(nil, BF16, []float32{math.MaxFloat32}); err == nil {
		t.Error("too large for BF16 is no error")
	}
	if _, err := AppendFloats(nil, I32, nil); err == nil {
		t.Error("floats as I32 are no error")
	}
}

// readBack writes one element to a file and reads it.
func readBack(t *testing.T, d DType, raw []byte) float32 {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, []Entry{{Name: "x", DType: d, Shape: []int{1}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write("x", raw); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	set, err := OpenSet(path)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	var x [1]float32
	if err := set.ReadAsFloat32("x", x[:]); err != nil {
		t.Fatal(err)
	}
	return x[0]
}
