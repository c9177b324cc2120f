package adamw_test

import (
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/adamw"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAdamW(t *testing.T) { optest.Run(t, adamw.Cases()) }

func TestNormThatIsNotFinite(t *testing.T) {
	for _, maxNorm := range []float64{0, 1} {
		spec := adamw.Spec(adamw.Settings{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, MaxNorm: maxNorm})
		for _, norm := range []float64{math.NaN(), math.Inf(1)} {
			// p, g, m, v, norm, hyper
			values := [][]float64{{1, 2}, {norm, 1}, {3, 4}, {5, 6}, {norm}, {0.1, 0.1, 0.05, 1}}
			c := &graph.CPUCall{Pool: simd.Serial{}}
			var in []graph.Array
			for _, v := range values {
				b := graph.Buffer{Rows: 1, Cols: len(v), Stride: len(v)}
				for _, x := range v {
					b.F32 = append(b.F32, float32(x))
				}
				c.In = append(c.In, b)
				in = append(in, graph.Array{Shape: graph.Shape{len(v)}, Data: slices.Clone(v)})
			}
			spec.CPU(c)()
			spec.Reference(nil, in, nil)
			for _, i := range []int{0, 2, 3} {
				for j, want := range values[i] {
					if got := float64(c.In[i].F32[j]); got != want {
						t.Errorf("max norm %v, norm %v: cpu: input %d is %v at %d, want %v", maxNorm, norm, i, got, j, want)
					}
				}
				if !slices.Equal(in[i].Data, values[i]) {
					t.Errorf("max norm %v, norm %v: reference: input %d is %v, want %v", maxNorm, norm, i, in[i].Data, values[i])
				}
			}
		}
	}
}
