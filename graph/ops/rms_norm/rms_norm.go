// Package rms_norm is root-mean-square normalization with a weight per channel (Zhang & Sennrich,
// arXiv 1910.07467), which Samba uses before every mixer.
package rms_norm

import (
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply normalizes the last dimension of x [B T D] and scales it by w [D].
func Apply(b *graph.Builder, x, w graph.Tensor, eps float64) graph.Tensor {
	return b.Apply(Spec(eps), x, w)
}

// Spec is y = x * rstd * w with rstd = 1/sqrt(mean(x^2) + eps). rstd is saved for
// the backward op.
func Spec(eps float64) *graph.Spec {
	return &graph.Spec{
		Name:      "rms_norm",
		Signature: "x[B T D], w:f32[D] -> y[B T D], rstd:f32[B T]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			x, w, y, rstd := in[0], in[1], out[0], out[1]
			for i := range x.Shape.Rows() {
				sum := 0.0
				for _, v := range x.Row(i) {
					sum += v * v
				}
				r := 1 / math.Sqrt(sum/float64(x.Shape.Cols())+eps)
				rstd.Data[i] = r
				for j, v := range x.Row(i) {
					y.Row(i)[j] = v * r * divisor(w.Data[j])
				}
			}
		},
		CPU:  forward(eps),
		CUDA: &graph.CUDA{Source: source, Launches: forwardCUDA(eps)},
		Norm: &graph.Norm{Epsilon: eps},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			// In mixed precision y is half as large as x, and is kept anyway for the product that
			// reads it: the residual stream, in float32, need not be kept.
			f, from := backward{}, g.In[0]
			if g.Builder().Mixed() {
				f, from = backward{fromY: true}, g.Out[0]
			}
			dx := g.Builder().Apply(f.spec(), from, g.In[1], g.Out[1], g.DOut)
			return []graph.Tensor{dx, dx.Output(1)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["D"])
			return graph.Cost{FLOPs: 4 * n, Bytes: 8 * n}
		},
	}
}

// leastWeight replaces weights that are closer to 0 in the backward pass, which computes x rstd as
// y / w, and also in the forward pass.
const leastWeight = 1e-20

func divisor(w float64) float64 {
	if math.Abs(w) < leastWeight {
		return math.Copysign(leastWeight, w)
	}
	return w
}

// backward is one of the forms of the backward op.
type backward struct {
	fromY   bool // it reads y instead of x
	add     bool // dx + z instead of dx: z is the gradient that bypasses a sublayer
	rounded bool // also dx in bfloat16, for the next products that use the gradient
}

func (f backward) name() string {
	name := "rms_norm_backward"
	for _, part := range []struct {
		of     bool
		suffix string
	}{{f.fromY, "_y"}, {f.add, "_add"}, {f.rounded, "_rounded"}} {
		if part.of {
			name += part.suffix
		}
	}
	return name
}

func (f backward) signature() string {
	from, z, rounded := "x", "", ""
	if f.fromY {
		from = "y"
	}
	if f.add {
		z = ", z[B T D]"
	}
	if f.rounded {
		rounded = ", rounded[B T D]"
	}
	return from + "[B T D], w:f32[D], rstd:f32[B T], dy[B T D]" + z + " -> dx:f32[B T D], dw:f32[D]" + rounded
}

// spec is, for each row, with n = x * rstd or n = y / w,
func (f backward) spec() *graph.Spec {
	flops, bytes := 9.0, 12.0
	inPlace := []int{3}
	if f.add {
		flops, bytes, inPlace = 10, 16, []int{4, 3}
	}
	if f.rounded {
		bytes += 4
	}
	s := &graph.Spec{
		Name:      f.name(),
		Signature: f.signature(),
		Reference: f.reference,
		CPU:       f.cpu,
		CUDA:      &graph.CUDA{Source: source, Launches: f.launches, Workspace: backwardWorkspaceCUDA},
		Workspace: f.workspace,
		InPlace:   inPlace,
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["D"])
			return graph.Cost{FLOPs: flops * n, Bytes: bytes * n}
		},
	}
	if !f.add && !f.rounded {
		s.Added = func() *graph.Spec { return backward{fromY: f.fromY, add: true}.spec() }
	}
	other := f
	other.rounded = !f.rounded
	if f.rounded {
		s.Unrounded = other.spec
	} else {
		s.Rounded = other.spec
	}
	if f.add {
		s.Narrow = []int{4}
	}
	return s
}

func (f backward) reference(_ graph.Dims, in, out []graph.Array) {
	x, w, rstd, dy, dx, dw := in[0], in[1], in[2], in[3], out[0], out[1]
	d := x.Shape.Cols()
	normal := make([]float64, d)
	for i := range x.Shape.Rows() {
		dot := 0.0
		for j, v := range x.Row(i) {
			normal[j] = v * rstd.Data[i]
			if f.fromY {
				normal[j] = v / divisor(w.Data[j])
			}
			dot += w.Data[j] * dy.Row(i)[j] * normal[j]
		}
		for j, n := range normal {
			g := dy.Row(i)[j]
			dx.Row(i)[j] = rstd.Data[i] * (w.Data[j]*g - n*dot/float64(d))
			dw.Data[j] += g * n
		}
	}
	if f.add {
		for i, v := range in[4].Data {
			dx.Data[i] += v
		}
	}
	if f.rounded {
		copy(out[2].Data, dx.Data)
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	of := func(name string, f backward, b, t, d int) graph.Case {
		fill := map[string]graph.Fill{"rstd": graph.Uniform(0.5, 2)}
		if f.fromY {
			fill["w"] = graph.Uniform(0.5, 2)
		}
		return graph.Case{Name: name, Spec: f.spec(), Dims: graph.Dims{"B": b, "T": t, "D": d}, Fill: fill}
	}
	// Weights that are 0, with the y that the forward pass computes for them.
	zeros := of("from y, zeros among the weights", backward{fromY: true, add: true, rounded: true}, 2, 9, 40)
	zeros.Fill["w"] = sometimes(graph.Uniform(0.5, 2), 0)
	zeros.Fill["y"] = sometimes(graph.Uniform(-2, 2), leastWeight)
	added := func(name string, b, t, d int) graph.Case { return of(name, backward{add: true}, b, t, d) }
	bench := func(name string, d int) graph.Case {
		c := added(name, 1, 4096, d)
		c.Bench = true
		return c
	}
	return []graph.Case{
		of("rounded", backward{rounded: true}, 3, 7, 36),
		of("rounded odd", backward{add: true, rounded: true}, 2, 9, 13),
		of("from y", backward{fromY: true}, 2, 5, 32),
		of("from y odd", backward{fromY: true, rounded: true}, 3, 7, 13),
		of("from y added", backward{fromY: true, add: true}, 1, 2*rowsPerBlock+3, 36),
		zeros,
		of("from y added, rounded, many blocks", backward{fromY: true, add: true, rounded: true}, 1, 2*rowsPerBlock+3, 600),
		added("added small", 2, 5, 32),
		added("added odd", 3, 7, 13),
		added("added many blocks", 1, 2*rowsPerBlock+3, 600),
		bench("421m", 1536),
		{Name: "421m from y", Spec: backward{fromY: true, add: true, rounded: true}.spec(), Bench: true,
			Dims: graph.Dims{"B": 1, "T": 4096, "D": 1536}, Fill: map[string]graph.Fill{"rstd": graph.Uniform(0.5, 2), "w": graph.Uniform(0.5, 2)}},
		of("from y, three warps a row", backward{fromY: true, add: true, rounded: true}, 1, 37, 604),
		of("from y, rows in turns on a GPU", backward{fromY: true, add: true, rounded: true}, 1, multiprocessors*2*backwardWarps*2+5, 24),
		bench("30m", 512),
		{Name: "small", Spec: Spec(1e-5), Dims: graph.Dims{"B": 2, "T": 5, "D": 32}},
		{Name: "odd", Spec: Spec(1e-5), Dims: graph.Dims{"B": 3, "T": 7, "D": 13}},
		{Name: "two channels", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 1, "D": 2}},
		{Name: "many blocks", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 3 * rowsPerBlock, "D": 20}},
		{Name: "rows in turns on a GPU", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": multiprocessors*2*backwardWarps + 5, "D": 13}},
		{Name: "three warps a row", Spec: Spec(1e-5), Dims: graph.Dims{"B": 2, "T": 9, "D": 600}},
		{Name: "wide", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 3, "D": 2052}},
		{Name: "421m", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 4096, "D": 1536}, Bench: true},
		{Name: "30m", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 1024, "D": 512}, Bench: true},
	}
}

// sometimes fills an array, and multiplies every fifth column by factor.
func sometimes(fill graph.Fill, factor float64) graph.Fill {
	return func(r *rand.Rand, a graph.Array) {
		fill(r, a)
		for i := range a.Data {
			if i%a.Shape.Cols()%5 == 0 {
				a.Data[i] *= factor
			}
		}
	}
}
