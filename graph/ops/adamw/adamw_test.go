package adamw_test

import (
	"math"
	"math/rand/v2"
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

// Rounding is compared with the updated parameters themselves: the float64 values of the reference
// may be on the other side of a rounding boundary.
func TestShadowIsTheUpdatedParameters(t *testing.T) {
	const n = 3 << 16
	update, shadow, p := mixedUpdate(n, 0.5)
	update()
	for i, x := range p {
		half := uint16(math.Float32bits(shadow[i/2]) >> (i % 2 * 16))
		rounded := math.Float32frombits(uint32(half) << 16)
		// Half the distance between bfloat16 values of this size.
		if limit := math.Ldexp(1, math.Ilogb(float64(x))-8); !(math.Abs(float64(rounded)-float64(x)) <= limit) {
			t.Fatalf("parameter %d is %v, in shadow %v", i, x, rounded)
		}
	}
}

func TestShadowStaysWhereNormIsNotFinite(t *testing.T) {
	update, shadow, _ := mixedUpdate(64, math.Inf(1))
	before := slices.Clone(shadow)
	update()
	if !slices.Equal(shadow, before) {
		t.Errorf("shadow became %v", shadow)
	}
}

// mixedUpdate binds adamw_mixed to n random parameters, and to a norm.
func mixedUpdate(n int, norm float64) (update func(), shadow, p []float32) {
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(size int) graph.Buffer {
		b := graph.Buffer{Rows: 1, Cols: size, Stride: size, F32: make([]float32, size)}
		for i := range b.F32 {
			b.F32[i] = float32(math.Abs(rng.NormFloat64()))
		}
		return b
	}
	c := &graph.CPUCall{Pool: simd.Serial{}, In: []graph.Buffer{
		draw(n / 2), draw(n), draw(n), draw(n), draw(n), draw(1), draw(adamw.HyperSize),
	}}
	c.In[5].F32[0] = float32(norm)
	spec := adamw.MixedSpec(adamw.Settings{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, MaxNorm: 1})
	return spec.CPU(c), c.In[0].F32, c.In[1].F32
}
