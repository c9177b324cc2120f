package linear_recurrence

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// decayAt is exp(g) of channel i of head h at row r of [B T].
func (f *form) decayAt(d graph.Dims, in []graph.Array, r, h, i int) float64 {
	if f.fixed() {
		return math.Exp(f.logDecay[h])
	}
	return math.Exp(in[3].Row(r)[h*d["Dk"]+i])
}

// head is head h, of width w, of row r.
func head(a graph.Array, r, h, w int) []float64 { return a.Row(r)[h*w : (h+1)*w] }

// forwardReference continues from the states [B H Dk Dv] and stores the final ones there.
func (f *form) forwardReference(d graph.Dims, in []graph.Array, states, o graph.Array) {
	dk, dv := d["Dk"], d["Dv"]
	for b := range d["B"] {
		for h := range d["H"] {
			s := states.Data[(b*d["H"]+h)*dk*dv:][:dk*dv]
			for r := b * d["T"]; r < (b+1)*d["T"]; r++ {
				f.step(d, in, r, h, s, s)
				for i, q := range head(in[0], r, h, dk) {
					for j := range dv {
						head(o, r, h, dv)[j] += q * s[i*dv+j] / math.Sqrt(float64(dk))
					}
				}
			}
		}
	}
}

// step advances the state of head h from before row r to after it.
func (f *form) step(d graph.Dims, in []graph.Array, r, h int, before, after []float64) {
	dk, dv := d["Dk"], d["Dv"]
	for i, k := range head(in[1], r, h, dk) {
		a := f.decayAt(d, in, r, h, i)
		for j, v := range head(in[2], r, h, dv) {
			after[i*dv+j] = a*before[i*dv+j] + k*v
		}
	}
}

// backwardReference keeps the state after each token, and goes backwards through step. The last
// element of in is do.
func (f *form) backwardReference(d graph.Dims, in, out []graph.Array) {
	dk, dv, tokens := d["Dk"], d["Dv"], d["T"]
	q, k, v, do := in[0], in[1], in[2], in[len(in)-1]
	scale, size := 1/math.Sqrt(float64(dk)), dk*dv
	for b := range d["B"] {
		for h := range d["H"] {
			states := make([]float64, (tokens+1)*size) // before each token, and after the last
			for t := range tokens {
				f.step(d, in, b*tokens+t, h, states[t*size:], states[(t+1)*size:])
			}
			ds := make([]float64, size) // the gradient of the state after t from later tokens
			for t := tokens - 1; t >= 0; t-- {
				r := b*tokens + t
				before, after := states[t*size:], states[(t+1)*size:]
				for i := range dk {
					qi, ki, a := head(q, r, h, dk)[i], head(k, r, h, dk)[i], f.decayAt(d, in, r, h, i)
					dqi, dki, dgi := 0.0, 0.0, 0.0
					for j, g := range head(do, r, h, dv) {
						e := i*dv + j
						ds[e] += scale * qi * g
						dqi += scale * after[e] * g
						dki += ds[e] * head(v, r, h, dv)[j]
						head(out[2], r, h, dv)[j] += ds[e] * ki
						ds[e] *= a
						dgi += ds[e] * before[e]
					}
					head(out[0], r, h, dk)[i], head(out[1], r, h, dk)[i] = dqi, dki
					if !f.fixed() {
						head(out[3], r, h, dk)[i] = dgi
					}
				}
			}
		}
	}
}
