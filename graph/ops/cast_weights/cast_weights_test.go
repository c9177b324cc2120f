package cast_weights_test

import (
	"math"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/cast_weights"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestCastWeights(t *testing.T) { optest.Run(t, cast_weights.Cases()) }

func TestRounding(t *testing.T) {
	for _, c := range []struct {
		name    string
		x, want uint32 // bits of a float32, and of its bfloat16
	}{
		{"zero", 0, 0},
		{"minus zero", 0x80000000, 0x8000},
		{"one", 0x3f800000, 0x3f80},
		{"below the middle", 0x3f807fff, 0x3f80},
		{"the middle, even", 0x3f808000, 0x3f80},
		{"the middle, odd", 0x3f818000, 0x3f82},
		{"above the middle", 0x3f808001, 0x3f81},
		{"carry into the exponent", 0x3fffffff, 0x4000},
		{"greatest", 0x7f7fffff, 0x7f80},
		{"infinity", 0xff800000, 0xff80},
		{"not a number", 0x7f800001, 0x7fff},
	} {
		shadow, p := []float32{7}, []float32{math.Float32frombits(c.x), 1}
		cast_weights.Spec().CPU(&graph.CPUCall{Pool: simd.Serial{}, In: []graph.Buffer{
			{Rows: 1, Cols: 1, Stride: 1, F32: shadow}, {Rows: 1, Cols: 2, Stride: 2, F32: p},
		}})()
		if got, want := math.Float32bits(shadow[0]), c.want|0x3f800000; got != want {
			t.Errorf("%s: %#x and 1 become %#x, want %#x", c.name, c.x, got, want)
		}
	}
}
