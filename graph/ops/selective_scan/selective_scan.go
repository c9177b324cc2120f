// Package selective_scan is the recurrence of Mamba's S6 layer with its output
// gate (arXiv 2312.00752, algorithm 2; Samba, arXiv 2406.07522, section 2.1.1).
package selective_scan

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// Apply scans u [B T C]. dt [B T C] are the time steps before their bias dtBias [C] and softplus,
// aLog [C N] the logarithms of the states' decay rates, bm and cm [B T N] the input and output
// matrices, and d [C] the skip. The result y [B T C] is gated with silu(z), z [B T C]; the zero
// Tensor as z means no gate. In the stateful form the scan continues where the previous call ended.
func Apply(b *graph.Builder, u, dt, dtBias, aLog, bm, cm, d, z graph.Tensor) graph.Tensor {
	in := []graph.Tensor{u, dt, dtBias, aLog, bm, cm, d}
	gated := z.Valid()
	if gated {
		in = append(in, z)
	}
	if s := u.Shape(); b.Carries() != nil && len(s) == 3 {
		h := b.State("h", s[0], aLog.Shape().Cols(), s.Cols())
		return b.Apply(CarrySpec(gated), append(in, h)...)
	}
	forward, backward := Spec(gated), backwardSpec(gated)
	if b.ByDocument() {
		forward, backward = documentSpecs(gated)
	}
	return b.ApplyByDocument(forward, backward, savedOutputs, in...)
}

// savedOutputs are the outputs that the backward op reads.
var savedOutputs = []int{1}

// Spec is, with delta = softplus(dt + dt_bias), A = -exp(A_log) and h[-1] = 0,
//
//	h[t,n,c] = exp(delta[t,c] * A[c,n]) * h[t-1,n,c] + delta[t,c] * Bm[t,n] * u[t,c]
//	y[t,c]   = (sum_n Cm[t,n] * h[t,n,c] + D[c] * u[t,c]) * silu(z[t,c])
//
// and without z and its factor when not gated. The states before each of the S
// chunks of simd.ScanChunk tokens are saved for the backward op, channels last as
// the kernels hold them. In mixed precision they are bfloat16, since the backward op uses them as
// operands of bfloat16 products.
func Spec(gated bool) *graph.Spec {
	return &graph.Spec{
		Name:      name(gated, ""),
		Signature: inputs(gated) + " -> y[B T C], h[B S N C]",
		Derive:    deriveChunks,
		Reference: func(d graph.Dims, in, out []graph.Array) {
			h := graph.NewArray(graph.Shape{d["B"], d["N"], d["C"]})
			forwardReference(d, operandsOf(gated, in), h, out[0], out[1])
		},
		CPU:            forward(gated),
		CUDA:           form{gated: gated}.forward(),
		CUDAByDocument: form{gated: gated, byDocument: true}.forward(),
		Workspace:      forwardWorkspace,
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			in := append(append([]graph.Tensor{}, g.In...), g.Out[1], g.DOut)
			grads := []graph.Tensor{g.Builder().Apply(backwardSpec(gated), in...)}
			for i := 1; i < len(g.In); i++ {
				grads = append(grads, grads[0].Output(i))
			}
			return grads
		},
		Cost: func(d graph.Dims) graph.Cost {
			c := forwardCost(gated, d)
			c.Bytes += savedBytes(d)
			return c
		},
	}
}

// documentSpecs are Spec and backwardSpec for their form by document, which saves no states: its costs
// are without their bytes.
func documentSpecs(gated bool) (forward, backward *graph.Spec) {
	forward, backward = Spec(gated), backwardSpec(gated)
	for _, s := range []*graph.Spec{forward, backward} {
		whole := s.Cost
		s.Cost = func(d graph.Dims) graph.Cost {
			c := whole(d)
			c.Bytes -= savedBytes(d)
			return c
		}
	}
	return forward, backward
}

// specByDocument is Spec's form by document.
func specByDocument(gated bool) *graph.Spec {
	forward, backward := documentSpecs(gated)
	return graph.ByDocument(forward, backward, savedOutputs)
}

// CarrySpec is Spec for a sequence that arrives in pieces: on entry h holds the states before this
// piece, on return those before the next one. A sequence starts from zeros.
func CarrySpec(gated bool) *graph.Spec {
	return &graph.Spec{
		Name:      name(gated, "_carry"),
		Signature: inputs(gated) + ", h:f32![B N C] -> y[B T C]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			forwardReference(d, operandsOf(gated, in), in[len(in)-1], out[0], graph.Array{})
		},
		CPU:       forwardCarry(gated),
		CUDA:      form{gated: gated, carry: true}.forward(),
		Projected: func() *graph.Spec { return projectedSpec(gated) },
		Workspace: forwardWorkspace,
		Cost:      func(d graph.Dims) graph.Cost { return carryCost(gated, d) },
	}
}

// backwardSpec recomputes the states of each chunk from the saved ones. With g the gradient of the
// value that the gate multiplies and
//
//	dh[t,n,c] = g[t,c] * Cm[t,n] + exp(delta[t+1,c] * A[c,n]) * dh[t+1,n,c]
//	w[t,n,c]  = dh[t,n,c] * exp(delta[t,c] * A[c,n]) * h[t-1,n,c]
//
// it gives
//
//	du       = D * g + delta * sum_n dh * Bm
//	ddt      = (u * sum_n dh * Bm + sum_n w * A) * sigmoid(dt + dt_bias)
//	ddt_bias = sum over rows and t of ddt
//	dA_log   = A * sum over rows and t of w * delta
//	dBm      = sum_c dh * delta * u
//	dCm      = sum_c g * h
//	dD       = sum over rows and t of g * u
//
// dz       = dy * (the value that the gate multiplies) * silu'(z)
func backwardSpec(gated bool) *graph.Spec {
	out := "du[B T C], ddt[B T C], ddt_bias:f32[C], dA_log:f32[C N], dBm[B T N], dCm[B T N], dD:f32[C]"
	// du may overwrite dy: a block of dy is read for the last time before du is written there.
	dy := 8
	if gated {
		out, dy = out+", dz[B T C]", 9
	}
	return &graph.Spec{
		Name:           name(gated, "_backward"),
		Signature:      inputs(gated) + ", h[B S N C], dy[B T C] -> " + out,
		Derive:         deriveChunks,
		Reference:      func(d graph.Dims, in, out []graph.Array) { backwardReference(d, operandsOf(gated, in), in, out) },
		CPU:            backward(gated),
		CUDA:           form{gated: gated}.backward(),
		CUDAByDocument: form{gated: gated, byDocument: true}.backward(),
		Workspace:      backwardWorkspace,
		InPlace:        []int{dy},
		Cost:           func(d graph.Dims) graph.Cost { return backwardCost(gated, d) },
	}
}

func name(gated bool, part string) string {
	if gated {
		return "selective_scan" + part
	}
	return "selective_scan_ungated" + part
}

func inputs(gated bool) string {
	s := "u[B T C], dt[B T C], dt_bias:f32[C], A_log:f32[C N], Bm[B T N], Cm[B T N], D:f32[C]"
	if gated {
		s += ", z[B T C]"
	}
	return s
}

func deriveChunks(d graph.Dims) error {
	chunks := (d["T"] + simd.ScanChunk - 1) / simd.ScanChunk
	if s, ok := d["S"]; ok && s != chunks {
		return fmt.Errorf("h holds the states of %d chunks, %d tokens have %d", s, d["T"], chunks)
	}
	d["S"] = chunks
	return nil
}

// forwardCost counts, per state, an exponential and 6 more operations: the product in its exponent,
// and five to update the state and add it to y; per channel, an exponential, a logarithm and 6 for
// softplus, delta * u and D * u; and an exponential and 5 for the gate.
func forwardCost(gated bool, d graph.Dims) graph.Cost {
	n := float64(d["B"] * d["T"] * d["C"])
	perChannel, arrays := 6.0+2*graph.ExpFLOPs, 3.0
	if gated {
		perChannel, arrays = 11+3*graph.ExpFLOPs, 4
	}
	return graph.Cost{
		FLOPs: n * ((6+graph.ExpFLOPs)*float64(d["N"]) + perChannel),
		Bytes: 4*arrays*n + 8*float64(d["B"]*d["T"]*d["N"]) + weightBytes(d),
	}
}

// carryCost is forwardCost with the states, which are read and written.
func carryCost(gated bool, d graph.Dims) graph.Cost {
	c := forwardCost(gated, d)
	c.Bytes += 8 * float64(d["B"]*d["N"]*d["C"])
	return c
}

// weightBytes are those of A_log, dt_bias and D.
func weightBytes(d graph.Dims) float64 { return 4 * float64(d["C"]*(d["N"]+2)) }

// backwardCost counts, per state, an exponential and 4 operations to recompute it and 14 for its
// gradients (2 for each of dh, dCm, dBm, sum dh*Bm, sum w*A and dA, and 1 for each of w and the
// step back), and 2 more for y when gated. Per channel there are an exponential, a logarithm and
// 16, and an exponential and 13 for the gate.
func backwardCost(gated bool, d graph.Dims) graph.Cost {
	n := float64(d["B"] * d["T"] * d["C"])
	perState, perChannel, arrays := 18.0+graph.ExpFLOPs, 16.0+2*graph.ExpFLOPs, 5.0
	if gated {
		perState, perChannel, arrays = 20+graph.ExpFLOPs, 29+3*graph.ExpFLOPs, 7
	}
	return graph.Cost{
		FLOPs: n * (perState*float64(d["N"]) + perChannel),
		Bytes: 4*arrays*n + 16*float64(d["B"]*d["T"]*d["N"]) + savedBytes(d) + 2*weightBytes(d),
	}
}

func savedBytes(d graph.Dims) float64 { return 4 * float64(d["B"]*d["S"]*d["N"]*d["C"]) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	const chunk = simd.ScanChunk
	shapes := []graph.Case{
		{Name: "small", Dims: graph.Dims{"B": 2, "T": 6, "C": 16, "N": 16}},
		{Name: "odd", Dims: graph.Dims{"B": 3, "T": chunk + 7, "C": 37, "N": 5}},
		{Name: "one token", Dims: graph.Dims{"B": 2, "T": 1, "C": 7, "N": 8}},
		{Name: "one state", Dims: graph.Dims{"B": 1, "T": 9, "C": 3, "N": 1}},
		{Name: "whole chunks", Dims: graph.Dims{"B": 1, "T": 2 * chunk, "C": 32, "N": 8}},
		{Name: "many slices", Dims: graph.Dims{"B": 2, "T": chunk + 1, "C": 3*minSlice + 9, "N": 4}},
		{Name: "many states", Dims: graph.Dims{"B": 1, "T": 11, "C": 18, "N": 64}},
	}
	var cases []graph.Case
	for _, gated := range []bool{true, false} {
		for _, s := range shapes {
			whole, piece := s, s
			whole.Spec, whole.Fill = Spec(gated), trained()
			piece.Spec, piece.Fill = CarrySpec(gated), trained()
			cases = append(cases, whole, piece)
		}
	}
	documents := trained()
	documents["start"] = graph.DocumentStarts(chunk + 5)
	for _, gated := range []bool{true, false} {
		cases = append(cases, graph.Case{Name: "documents", Spec: specByDocument(gated),
			Fill: documents, Dims: graph.Dims{"B": 2, "T": 3*chunk + 1, "C": 37, "N": 5}})
	}
	// Rows long enough for a GPU to cut them into segments.
	segments := graph.Dims{"B": 1, "T": 5*chunk + 1, "C": 64, "N": 16}
	cases = append(cases,
		graph.Case{Name: "segments", Spec: Spec(true), Fill: trained(), Dims: segments},
		graph.Case{Name: "segments", Spec: specByDocument(true), Fill: documents, Dims: segments})
	// So few channels in total that a GPU gives each thread one of them.
	few := graph.Dims{"B": 130, "T": 5, "C": 64, "N": 16}
	cases = append(cases,
		graph.Case{Name: "few channels", Spec: CarrySpec(true), Fill: trained(), Dims: few},
		graph.Case{Name: "few channels", Spec: CarrySpec(false), Fill: trained(), Dims: few})
	// Steps so long that the states are forgotten at once: exp gives 0 and softplus is linear.
	long := trained()
	long["dt"] = graph.Uniform(-40, 40)
	for _, gated := range []bool{true, false} {
		s := projectedSpec(gated)
		cases = append(cases,
			graph.Case{Name: "projected", Spec: s, Fill: projected(24), Dims: graph.Dims{"B": 2, "T": 1, "C": 48, "N": 16, "R": 24}},
			graph.Case{Name: "projected, odd", Spec: s, Fill: projected(5), Dims: graph.Dims{"B": 3, "T": 1, "C": 37, "N": 5, "R": 5}},
			graph.Case{Name: "projected, wide", Spec: s, Fill: projected(296), Dims: graph.Dims{"B": 1, "T": 1, "C": 33, "N": 8, "R": 296}},
			graph.Case{Name: "projected, 21 rows", Spec: s, Fill: projected(64), Dims: graph.Dims{"B": 21, "T": 1, "C": 77, "N": 16, "R": 64}},
			graph.Case{Name: "projected, five rows", Spec: s, Fill: projected(184), Dims: graph.Dims{"B": 5, "T": 1, "C": 40, "N": 5, "R": 184}})
	}
	// In mixed precision a GPU has a separate kernel for 16 states and a multiple of 64 channels.
	whole := graph.Dims{"B": 1, "T": 2 * chunk, "C": 64, "N": 16}
	return append(cases,
		graph.Case{Name: "whole blocks", Spec: Spec(true), Fill: trained(), Dims: whole},
		graph.Case{Name: "whole blocks", Spec: Spec(false), Fill: trained(), Dims: whole},
		graph.Case{Name: "long steps", Spec: Spec(true), Fill: long, Dims: graph.Dims{"B": 1, "T": 20, "C": 64, "N": 16}},
		graph.Case{Name: "1.7b one token", Spec: projectedSpec(true), Fill: projected(128), Dims: graph.Dims{"B": 1, "T": 1, "C": 4096, "N": 16, "R": 128}, Bench: true},
		graph.Case{Name: "1.7b a token of 16 rows", Spec: projectedSpec(true), Fill: projected(128), Dims: graph.Dims{"B": 16, "T": 1, "C": 4096, "N": 16, "R": 128}, Bench: true},
		graph.Case{Name: "3.8b a token of 16 rows", Spec: projectedSpec(true), Fill: projected(176), Dims: graph.Dims{"B": 16, "T": 1, "C": 5632, "N": 16, "R": 176}, Bench: true},
		graph.Case{Name: "421m", Spec: Spec(true), Fill: trained(), Dims: graph.Dims{"B": 1, "T": 1024, "C": 3072, "N": 16}, Bench: true},
		graph.Case{Name: "421m documents", Spec: specByDocument(true), Fill: documents, Dims: graph.Dims{"B": 1, "T": 1024, "C": 3072, "N": 16}, Bench: true},
		graph.Case{Name: "30m", Spec: Spec(true), Fill: trained(), Dims: graph.Dims{"B": 1, "T": 1024, "C": 1024, "N": 16}, Bench: true},
		graph.Case{Name: "421m one token", Spec: CarrySpec(true), Fill: trained(), Dims: graph.Dims{"B": 1, "T": 1, "C": 3072, "N": 16}, Bench: true},
	)
}

// projected fills the operands where dt is a product of rank r.
func projected(r int) map[string]graph.Fill {
	fill := trained()
	fill["dt_proj"] = graph.Uniform(-1/math.Sqrt(float64(r)), 1/math.Sqrt(float64(r)))
	return fill
}

// trained fills the operands with numbers like those of a trained model: time steps of 0.001 to
// 0.1, and state n decaying at about the rate n+1.
func trained() map[string]graph.Fill {
	return map[string]graph.Fill{
		"dt": func(r *rand.Rand, a graph.Array) {
			for i := range a.Data {
				a.Data[i] = 0.5 * r.NormFloat64()
			}
		},
		"dt_bias": graph.Uniform(-6, -2),
		"A_log": func(r *rand.Rand, a graph.Array) {
			for i := range a.Data {
				a.Data[i] = math.Log(float64(i%a.Shape.Cols()+1)) + 0.1*r.NormFloat64()
			}
		},
	}
}
