package chunk_attention

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

func reference(d graph.Dims, in, out []graph.Array) {
	q, k, v, bias, o, lse := in[0], in[1], in[2], in[3], out[0], out[1]
	for b := range d["B"] {
		for t := range d["T"] {
			i := b*d["T"] + t
			n := t%d["W"] + 1 // the number of tokens that this one sees
			var keys, values [][]float64
			for j := i - n + 1; j <= i; j++ {
				keys, values = append(keys, k.Row(j)), append(values, v.Row(j))
			}
			lse.Data[i] = attend(q.Row(i), keys, values, bias.Data, o.Row(i))
		}
	}
}

// attend is softmax attention of the token that the last key belongs to, and returns the log of the
// sum of the scores' exponentials.
func attend(q []float64, keys, values [][]float64, bias, o []float64) (lse float64) {
	scores := make([]float64, len(keys))
	greatest := math.Inf(-1)
	for j, k := range keys {
		scores[j] = dot(q, k)/math.Sqrt(float64(len(q))) + bias[len(keys)-1-j]
		greatest = math.Max(greatest, scores[j])
	}
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(s - greatest)
	}
	lse = greatest + math.Log(sum)
	for j, v := range values {
		addScaled(o, math.Exp(scores[j]-lse), v)
	}
	return lse
}

func backwardReference(d graph.Dims, in, out []graph.Array) {
	q, k, v, bias, o, lse, do := in[0], in[1], in[2], in[3], in[4], in[5], in[6]
	dq, dk, dv, dbias := out[0], out[1], out[2], out[3]
	scale := 1 / math.Sqrt(float64(d["D"]))
	for i := range d["B"] * d["T"] {
		delta := dot(do.Row(i), o.Row(i))
		for n := range i%d["T"]%d["W"] + 1 {
			j := i - n
			p := math.Exp(dot(q.Row(i), k.Row(j))*scale + bias.Data[n] - lse.Data[i])
			ds := p * (dot(do.Row(i), v.Row(j)) - delta)
			addScaled(dv.Row(j), p, do.Row(i))
			addScaled(dq.Row(i), ds*scale, k.Row(j))
			addScaled(dk.Row(j), ds*scale, q.Row(i))
			dbias.Data[n] += ds
		}
	}
}

func carryReference(d graph.Dims, in, out []graph.Array) {
	q, k, v, bias, key, value, o := in[0], in[1], in[2], in[3], in[4], in[5], out[0]
	// Token by token: write the token's key and value, then attend to the chunk.
	for b := range d["B"] {
		for t := range d["T"] {
			i, slot := b*d["T"]+t, (int(in[6].Data[b])+t)%d["W"]
			copy(key.Row(b*d["W"]+slot), k.Row(i))
			copy(value.Row(b*d["W"]+slot), v.Row(i))
			var keys, values [][]float64
			for j := range slot + 1 {
				keys, values = append(keys, key.Row(b*d["W"]+j)), append(values, value.Row(b*d["W"]+j))
			}
			attend(q.Row(i), keys, values, bias.Data, o.Row(i))
		}
	}
}

func dot(a, b []float64) float64 {
	s := 0.0
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

func addScaled(y []float64, a float64, x []float64) {
	for i, v := range x {
		y[i] += a * v
	}
}
