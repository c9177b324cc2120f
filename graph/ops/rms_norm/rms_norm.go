// Package rms_norm is root-mean-square normalisation with a weight a channel
// (Zhang & Sennrich, arXiv 1910.07467), as Samba uses it before every mixer.
package rms_norm

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply normalises the last dimension of x [B T D] and scales it by w [D].
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
					y.Row(i)[j] = v * r * w.Data[j]
				}
			}
		},
		CPU:  forward(eps),
		CUDA: &graph.CUDA{Source: source, Launches: forwardCUDA(eps)},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dx := g.Builder().Apply(backwardSpec(), g.In[0], g.In[1], g.Out[1], g.DOut)
			return []graph.Tensor{dx, dx.Output(1)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["D"])
			return graph.Cost{FLOPs: 4 * n, Bytes: 8 * n}
		},
	}
}

// backwardSpec is, a row,
//
//	dx = rstd * (w*dy - x * rstd^2 * mean(w*dy*x))
//	dw = sum over rows of dy * x * rstd
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "rms_norm_backward",
		Signature: "x[B T D], w:f32[D], rstd:f32[B T], dy[B T D] -> dx:f32[B T D], dw:f32[D]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			x, w, rstd, dy, dx, dw := in[0], in[1], in[2], in[3], out[0], out[1]
			n := float64(x.Shape.Cols())
			for i := range x.Shape.Rows() {
				r, dot := rstd.Data[i], 0.0
				for j, v := range x.Row(i) {
					dot += w.Data[j] * dy.Row(i)[j] * v
				}
				for j, v := range x.Row(i) {
					g := dy.Row(i)[j]
					dx.Row(i)[j] = r * (w.Data[j]*g - v*r*r*dot/n)
					dw.Data[j] += g * v * r
				}
			}
		},
		CPU:       backward,
		CUDA:      &graph.CUDA{Source: source, Launches: backwardCUDA, Workspace: backwardWorkspaceCUDA},
		Workspace: func(d graph.Dims, _ int) int { return blocks(d["B"]*d["T"]) * d["D"] },
		InPlace:   []int{3},
		Added:     backwardAddSpec,
		Rounded:   func() *graph.Spec { return rounded(backwardSpec()) },
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["D"])
			return graph.Cost{FLOPs: 9 * n, Bytes: 12 * n}
		},
	}
}

// backwardAddSpec is backwardSpec with dx + z for dx: the gradient that goes past a
// sublayer.
func backwardAddSpec() *graph.Spec {
	s := backwardSpec()
	alone := s.Reference
	s.Name = "rms_norm_backward_add"
	s.Signature = "x[B T D], w:f32[D], rstd:f32[B T], dy[B T D], z[B T D] -> dx:f32[B T D], dw:f32[D]"
	s.Added = nil
	s.Rounded = func() *graph.Spec { return rounded(backwardAddSpec()) }
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		alone(d, in[:4], out)
		for i, v := range in[4].Data {
			out[0].Data[i] += v
		}
	}
	s.CPU = backwardAdd
	s.CUDA = &graph.CUDA{Source: source, Launches: backwardAddCUDA, Workspace: backwardWorkspaceCUDA}
	s.Workspace = func(d graph.Dims, workers int) int { return (blocks(d["B"]*d["T"]) + workers) * d["D"] }
	s.InPlace = []int{4, 3}
	s.Cost = func(d graph.Dims) graph.Cost {
		n := float64(d["B"] * d["T"] * d["D"])
		return graph.Cost{FLOPs: 10 * n, Bytes: 16 * n}
	}
	return s
}

// rounded is a backward op that also gives dx in bfloat16, for the products that the
// gradient goes into next.
func rounded(s *graph.Spec) *graph.Spec {
	exact, cpu, cuda, cost := s.Reference, s.CPU, *s.CUDA, s.Cost
	s.Name += "_rounded"
	s.Signature += ", rounded[B T D]"
	s.Added, s.Rounded = nil, nil
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		exact(d, in, out[:2])
		copy(out[2].Data, out[0].Data)
	}
	s.CPU = func(c *graph.CPUCall) func() {
		run := cpu(c)
		return func() {
			run()
			for r := range c.Out[0].Rows {
				copy(c.Out[2].Row(r), c.Out[0].Row(r))
			}
		}
	}
	s.CUDA = &cuda
	s.CUDA.Launches = roundedCUDA(cuda.Launches)
	s.Cost = func(d graph.Dims) graph.Cost {
		c := cost(d)
		c.Bytes += 4 * float64(d["B"]*d["T"]*d["D"])
		return c
	}
	return s
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	added := func(name string, b, t, d int) graph.Case {
		return graph.Case{Name: name, Spec: backwardAddSpec(), Dims: graph.Dims{"B": b, "T": t, "D": d},
			Fill: map[string]graph.Fill{"rstd": graph.Uniform(0.5, 2)}}
	}
	bench := func(name string, d int) graph.Case {
		c := added(name, 1, 4096, d)
		c.Bench = true
		return c
	}
	return []graph.Case{
		{Name: "rounded", Spec: rounded(backwardSpec()), Dims: graph.Dims{"B": 3, "T": 7, "D": 36},
			Fill: map[string]graph.Fill{"rstd": graph.Uniform(0.5, 2)}},
		{Name: "rounded odd", Spec: rounded(backwardAddSpec()), Dims: graph.Dims{"B": 2, "T": 9, "D": 13},
			Fill: map[string]graph.Fill{"rstd": graph.Uniform(0.5, 2)}},
		added("added small", 2, 5, 32),
		added("added odd", 3, 7, 13),
		added("added many blocks", 1, 2*rowsPerBlock+3, 600),
		bench("421m", 1536),
		bench("30m", 512),
		{Name: "small", Spec: Spec(1e-5), Dims: graph.Dims{"B": 2, "T": 5, "D": 32}},
		{Name: "odd", Spec: Spec(1e-5), Dims: graph.Dims{"B": 3, "T": 7, "D": 13}},
		{Name: "two channels", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 1, "D": 2}},
		{Name: "many blocks", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 3 * rowsPerBlock, "D": 20}},
		{Name: "rows in turns on a GPU", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": parts*backwardWarps + 5, "D": 13}},
		{Name: "three warps a row", Spec: Spec(1e-5), Dims: graph.Dims{"B": 2, "T": 9, "D": 600}},
		{Name: "wide", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 3, "D": 2052}},
		{Name: "421m", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 4096, "D": 1536}, Bench: true},
		{Name: "30m", Spec: Spec(1e-5), Dims: graph.Dims{"B": 1, "T": 1024, "D": 512}, Bench: true},
	}
}
