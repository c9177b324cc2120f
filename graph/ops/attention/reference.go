package attention

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

func (c Config) reference(d graph.Dims, in, out []graph.Array) {
	q, k, v, o, lse := in[0], in[1], in[2], out[0], out[1]
	for b := range d["B"] {
		for t := range d["T"] {
			row := b*d["T"] + t
			for h := range d["H"] {
				n := h / (d["H"] / d["K"])
				var keys, values [][]float64
				for j := t - c.window(d["T"]) + 1; j <= t; j++ {
					if j >= 0 {
						keys = append(keys, head(d, k.Row(b*d["T"]+j), n))
						values = append(values, head(d, v.Row(b*d["T"]+j), n))
					}
				}
				lse.Row(row)[h] = attend(head(d, q.Row(row), h), keys, values, head(d, o.Row(row), h))
			}
		}
	}
}

// attend computes the softmax attention of one query and returns the log-sum-exp of its logits.
func attend(q []float64, keys, values [][]float64, o []float64) (lse float64) {
	scores := make([]float64, len(keys))
	greatest := math.Inf(-1)
	for j, k := range keys {
		scores[j] = dot(q, k) / math.Sqrt(float64(len(q)))
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

func (c Config) backwardReference(d graph.Dims, in, out []graph.Array) {
	q, k, v, o, lse, do, dq, dk, dv := in[0], in[1], in[2], in[3], in[4], in[5], out[0], out[1], out[2]
	scale := 1 / math.Sqrt(float64(d["D"]))
	for b := range d["B"] {
		for t := range d["T"] {
			i := b*d["T"] + t
			for h := range d["H"] {
				n := h / (d["H"] / d["K"])
				qi, doi := head(d, q.Row(i), h), head(d, do.Row(i), h)
				delta := dot(doi, head(d, o.Row(i), h))
				for s := max(0, t-c.window(d["T"])+1); s <= t; s++ {
					j := b*d["T"] + s
					kj, vj := head(d, k.Row(j), n), head(d, v.Row(j), n)
					p := math.Exp(dot(qi, kj)*scale - lse.Row(i)[h])
					ds := p * (dot(doi, vj) - delta) * scale
					addScaled(head(d, dv.Row(j), n), p, doi)
					addScaled(head(d, dq.Row(i), h), ds, kj)
					addScaled(head(d, dk.Row(j), n), ds, qi)
				}
			}
		}
	}
}

func (c Config) carryReference(d graph.Dims, in, out []graph.Array) {
	q, k, v, key, value, o := in[0], in[1], in[2], in[3], in[4], out[0]
	slots := d["W"]
	// Token by token: write the token's key and value, then attend to the slots.
	for b := range d["B"] {
		for t := range d["T"] {
			row, position := b*d["T"]+t, int(in[5].Data[b])+t
			copy(key.Row(b*slots+position%slots), k.Row(row))
			copy(value.Row(b*slots+position%slots), v.Row(row))
			for h := range d["H"] {
				n := h / (d["H"] / d["K"])
				var keys, values [][]float64
				for j := max(0, position-slots+1); j <= position; j++ {
					keys = append(keys, head(d, key.Row(b*slots+j%slots), n))
					values = append(values, head(d, value.Row(b*slots+j%slots), n))
				}
				attend(head(d, q.Row(row), h), keys, values, head(d, o.Row(row), h))
			}
		}
	}
}

// head returns head h of a row.
func head(d graph.Dims, row []float64, h int) []float64 {
	return row[h*d["D"] : (h+1)*d["D"]]
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
