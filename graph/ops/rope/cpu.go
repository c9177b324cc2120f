package rope

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// tokensPerTask makes a task long enough to be worth scheduling.
const tokensPerTask = 16

func (r rotation) cpu(c *graph.CPUCall) func() {
	x, y, d := c.In[0], c.Out[0], c.Dims
	tokens, half := d["T"], d["D"]/2
	table := newTable(r, tokens, half)
	carries := len(c.In) > 1
	if !carries {
		table.fill(0, tokens, 0)
	}
	task := func(i, _ int) {
		lo, hi := i*tokensPerTask, min((i+1)*tokensPerTask, tokens)
		for t := lo; t < hi; t++ {
			cos, sin := table.row(t)
			for b := range d["B"] {
				if carries && (b == 0 || c.In[1].I32[b] != c.In[1].I32[b-1]) {
					table.fill(t, t+1, int(c.In[1].I32[b]))
				}
				from, to := x.Row(b*tokens+t), y.Row(b*tokens+t)
				for ; len(from) > 0; from, to = from[2*half:], to[2*half:] {
					simd.Rotate(to[:2*half], from[:2*half], cos, sin)
				}
			}
		}
	}
	tasks := (tokens + tokensPerTask - 1) / tokensPerTask
	return func() { c.Pool.Run(tasks, task) }
}

// table holds the cosines and sines of a call's tokens: row t is [cos, sin], each for half a head.
type table struct {
	half      int
	frequency []float64
	angles    []float32
}

func newTable(r rotation, tokens, half int) *table {
	t := &table{half: half, frequency: make([]float64, half), angles: make([]float32, tokens*2*half)}
	for i := range t.frequency {
		t.frequency[i] = r.sign * r.frequency(i, half)
	}
	return t
}

func (t *table) row(i int) (cos, sin []float32) {
	row := t.angles[i*2*t.half:][:2*t.half]
	return row[:t.half], row[t.half:]
}

// fill computes rows [lo, hi) for a text with first tokens before row 0. Angles are float64: at
// position 1e6 a float32 angle is off by up to 0.03.
func (t *table) fill(lo, hi, first int) {
	for i := lo; i < hi; i++ {
		cos, sin := t.row(i)
		for k, w := range t.frequency {
			s, c := math.Sincos(float64(first+i) * w)
			cos[k], sin[k] = float32(c), float32(s)
		}
	}
}
