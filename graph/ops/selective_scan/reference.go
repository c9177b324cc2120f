package selective_scan

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// operands are the inputs that all forms share. z is empty without a gate.
type operands struct{ u, dt, dtBias, aLog, bm, cm, d, z graph.Array }

func operandsOf(gated bool, in []graph.Array) operands {
	x := operands{in[0], in[1], in[2], in[3], in[4], in[5], in[6], graph.Array{}}
	if gated {
		x.z = in[7]
	}
	return x
}

// forwardReference scans from the states h [B N C] and leaves the final states there. saved, unless
// empty, receives the states before each chunk.
func forwardReference(d graph.Dims, x operands, h, y, saved graph.Array) {
	tokens, channels, states := d["T"], d["C"], d["N"]
	for b := range d["B"] {
		h := h.Data[b*states*channels : (b+1)*states*channels]
		for t := range tokens {
			if saved.Data != nil && t%simd.ScanChunk == 0 {
				copy(saved.Data[(b*d["S"]+t/simd.ScanChunk)*len(h):], h)
			}
			i := b*tokens + t
			for c := range channels {
				v := x.step(i, c, h, h)
				if x.z.Data != nil {
					z := x.z.Row(i)[c]
					v *= z * sigmoid(z)
				}
				y.Row(i)[c] = v
			}
		}
	}
}

// step advances channel c of row i of [B T] from the states `before` to the states `after`, both [N
// C], and returns the value that the gate multiplies.
func (x operands) step(i, c int, before, after []float64) float64 {
	u, delta, channels := x.u.Row(i)[c], softplus(x.dt.Row(i)[c]+x.dtBias.Data[c]), x.u.Shape.Cols()
	y := x.d.Data[c] * u
	for n, aLog := range x.aLog.Row(c) {
		k := n*channels + c
		after[k] = math.Exp(-delta*math.Exp(aLog))*before[k] + delta*x.bm.Row(i)[n]*u
		y += x.cm.Row(i)[n] * after[k]
	}
	return y
}

// backwardReference applies the chain rule to step, from the last token to the first. The last two
// of `in` are h and dy; out is in the signature's order.
func backwardReference(d graph.Dims, x operands, in, out []graph.Array) {
	saved, dy := in[len(in)-2], in[len(in)-1]
	du, ddt, ddtBias, daLog, dbm, dcm, dd := out[0], out[1], out[2], out[3], out[4], out[5], out[6]
	tokens, channels, states := d["T"], d["C"], d["N"]
	size := states * channels
	for b := range d["B"] {
		y := make([]float64, tokens*channels)
		before, after := make([]float64, tokens*size), make([]float64, tokens*size)
		for t := range tokens {
			h, next := before[t*size:(t+1)*size], after[t*size:(t+1)*size]
			if t%simd.ScanChunk == 0 {
				copy(h, saved.Data[(b*d["S"]+t/simd.ScanChunk)*size:])
			} else {
				copy(h, after[(t-1)*size:])
			}
			for c := range channels {
				y[t*channels+c] = x.step(b*tokens+t, c, h, next)
			}
		}
		dh := make([]float64, size) // the gradient that later tokens send back to the states after t
		for t := tokens - 1; t >= 0; t-- {
			i := b*tokens + t
			for c := range channels {
				g, u, raw := dy.Row(i)[c], x.u.Row(i)[c], x.dt.Row(i)[c]+x.dtBias.Data[c]
				if x.z.Data != nil {
					z := x.z.Row(i)[c]
					s := sigmoid(z)
					out[7].Row(i)[c] = g * y[t*channels+c] * (s + z*s*(1-s))
					g *= z * s
				}
				delta, ddelta := softplus(raw), 0.0
				dd.Data[c] += g * u
				du.Row(i)[c] = g * x.d.Data[c]
				for n, aLog := range x.aLog.Row(c) {
					k := n*channels + c
					a := -math.Exp(aLog)
					decay, bm := math.Exp(delta*a), x.bm.Row(i)[n]
					dh[k] += g * x.cm.Row(i)[n]
					dcm.Row(i)[n] += g * after[t*size+k]
					dbm.Row(i)[n] += dh[k] * delta * u
					du.Row(i)[c] += dh[k] * delta * bm
					w := dh[k] * decay * before[t*size+k]
					ddelta += dh[k]*bm*u + w*a
					daLog.Row(c)[n] += w * delta * a
					dh[k] *= decay
				}
				ddt.Row(i)[c] = ddelta * sigmoid(raw)
				ddtBias.Data[c] += ddt.Row(i)[c]
			}
		}
	}
}

// softplus is log(1 + exp(v)), in the form that doesn't overflow.
func softplus(v float64) float64 { return max(v, 0) + math.Log1p(math.Exp(-math.Abs(v))) }

func sigmoid(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
