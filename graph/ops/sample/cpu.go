package sample

import (
	"math"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

func forward(c *graph.CPUCall) func() {
	scores, settings, token, n := c.In[0], c.In[1].I32, c.In[2].I32, c.Dims["N"]
	drawers := make([]Drawer, c.Pool.Workers())
	task := func(row, worker int) {
		token[row] = drawers[worker].Draw(scores.Row(row)[:n], settingsOf(settings[row*Words:]))
	}
	return func() { c.Pool.Run(scores.Rows, task) }
}

// Drawer draws tokens on the CPU. The zero value is ready to use, by one goroutine at a time.
type Drawer struct {
	weights weights
	ranking ranking
}

// Draw returns the token that the op draws from one row's logits.
func (d *Drawer) Draw(scores []float32, s Settings) int32 {
	best := int32(simd.ArgMax(scores))
	if s.Temperature == 0 {
		return best
	}
	d.weights.begin(scores[best], s.Temperature)
	if s.ranks(len(scores)) {
		return d.among(scores, s)
	}
	return d.weights.find(scores, s.Uniform*d.weights.sum(scores), best)
}

// among draws one of the most likely tokens. Tokens are ranked only as far as the draw requires, so
// that the whole vocabulary is not sorted for each token.
func (d *Drawer) among(scores []float32, s Settings) int32 {
	r, w := &d.ranking, &d.weights
	r.begin(scores, s.Temperature)
	kept, sum := len(scores), 0.0
	if k := s.TopK; k > 0 && k < kept {
		kept = k
		for i := range kept {
			sum += w.of(r.at(i).score)
		}
	} else {
		sum = w.sum(scores)
	}
	if s.TopP < 1 {
		mass, n := 0.0, 0
		for ; n < kept && mass < s.TopP*sum; n++ {
			mass += w.of(r.at(n).score)
		}
		kept, sum = n, mass
	}
	draw := s.Uniform * sum
	for i := range kept {
		if draw -= w.of(r.at(i).score); draw < 0 {
			return r.at(i).token
		}
	}
	return r.at(max(0, kept-1)).token
}

// block is the number of logits that vector kernels process at once.
const block = 256

// weights are exp((logit - best) / temperature).
type weights struct {
	best        float32
	temperature float64
	sums        []float64 // of each block
	room, least [block]float32
}

func (w *weights) begin(best float32, temperature float64) {
	w.best, w.temperature = best, temperature
	for i := range w.least {
		w.least[i] = -best
	}
}

// of returns the weight of a logit.
func (w *weights) of(score float32) float64 {
	return math.Exp((float64(score) - float64(w.best)) / w.temperature)
}

// ofBlock returns the weights of at most a block of logits, valid until the next call, and their
// sum.
func (w *weights) ofBlock(scores []float32) ([]float32, float64) {
	x := w.room[:len(scores)]
	simd.Add(x, scores, w.least[:len(scores)])
	simd.Scale(x, float32(min(1/w.temperature, math.MaxFloat32)), x)
	return x, float64(simd.SoftmaxExp(x, x, 0))
}

// sum returns the sum over all logits.
func (w *weights) sum(scores []float32) float64 {
	w.sums = w.sums[:0]
	total := 0.0
	for some := range slices.Chunk(scores, block) {
		_, sum := w.ofBlock(some)
		w.sums = append(w.sums, sum)
		total += sum
	}
	return total
}

// find returns the first token at which the cumulative weight exceeds draw, or best if rounding
// leaves none. sum must be called before it.
func (w *weights) find(scores []float32, draw float64, best int32) int32 {
	for b, sum := range w.sums {
		if draw >= sum {
			draw -= sum
			continue
		}
		x, _ := w.ofBlock(scores[b*block : min((b+1)*block, len(scores))])
		for i, v := range x {
			if draw -= float64(v); draw < 0 {
				return int32(b*block + i)
			}
		}
		break
	}
	return best
}
