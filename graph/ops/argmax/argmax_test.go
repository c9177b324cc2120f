package argmax_test

import (
	"math"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/argmax"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestArgmax(t *testing.T) { optest.Run(t, argmax.Cases()) }

// TestToken checks the CPU kernel's tokens, also for logits without a unique maximum and for NaNs.
func TestToken(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		scores []float32
		want   int32
	}{
		{[]float32{1, 3, 2, 3, 9}, 1},
		{[]float32{-1, -3, -0.5, -2, 9}, 2},
		{[]float32{-inf, -inf, -inf, -inf, 9}, 0},
		{[]float32{nan, nan, nan, nan, 9}, 0},
		{[]float32{0, inf, inf, 3, 9}, 1},
	} {
		token := []int32{-1}
		argmax.Spec(4).CPU(&graph.CPUCall{
			Pool: simd.Serial{},
			Dims: graph.Dims{"N": 4},
			In:   []graph.Buffer{{Rows: 1, Cols: 5, Stride: 5, F32: c.scores}, {Rows: 1, Cols: 1, Stride: 1, I32: token}},
		})()
		if token[0] != c.want {
			t.Errorf("%v: token %d, want %d", c.scores, token[0], c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, n := range []int{0, 6} {
		_, err := argmax.Spec(n).Resolve([]graph.Shape{{2, 1, 5}, {2, 1}})
		if err == nil || !strings.Contains(err.Error(), "of 5") {
			t.Errorf("%d scores: %v", n, err)
		}
	}
}
