package sample

import (
	"math"

	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

type candidate struct {
	token int32
	score float32
}

// before orders candidates, the most likely first. Ties are broken by token id, so that the draw is
// the same on every device.
func (c candidate) before(d candidate) bool {
	return c.score > d.score || c.score == d.score && c.token < d.token
}

// ranking orders the tokens by their logits, the most likely first, only as far as requested. They
// enter a heap in a few rounds, each with lower logits than the round before.
type ranking struct {
	scores []float32
	peaks  []float32  // the largest logit of each block
	floors [3]float32 // the smallest logit of each round
	rounds int        // number of rounds made
	above  float32    // the floor of the last of them
	heap   []candidate
	ranked []candidate // candidates taken from the heap
}

// begin starts to rank new logits. The rounds are divided by the weights at a temperature.
func (r *ranking) begin(scores []float32, temperature float64) {
	r.scores, r.peaks, r.heap, r.ranked = scores, r.peaks[:0], r.heap[:0], r.ranked[:0]
	best := float32(math.Inf(-1))
	for at := 0; at < len(scores); at += block {
		r.peaks = append(r.peaks, simd.Max(scores[at:min(at+block, len(scores))]))
		best = max(best, r.peaks[len(r.peaks)-1])
	}
	// Weights of at least e^-4 of the best one's, at least e^-12, and any.
	r.floors = [3]float32{best - float32(4*temperature), best - float32(12*temperature), float32(math.Inf(-1))}
	r.rounds, r.above = 0, float32(math.NaN())
}

// at returns candidate i in order. Those before it must have been requested before.
func (r *ranking) at(i int) candidate {
	for i == len(r.ranked) {
		if len(r.heap) == 0 {
			r.round()
			continue
		}
		last := len(r.heap) - 1
		r.ranked = append(r.ranked, r.heap[0])
		r.heap[0] = r.heap[last]
		r.heap = r.heap[:last]
		sift(r.heap, 0)
	}
	return r.ranked[i]
}

// round fills the heap with the logits of the next round.
func (r *ranking) round() {
	floor := r.floors[r.rounds]
	r.rounds++
	last := r.rounds == len(r.floors)
	for b, peak := range r.peaks {
		if peak < floor {
			continue
		}
		at := b * block
		for i, x := range r.scores[at:min(at+block, len(r.scores))] {
			if (x >= floor || last) && !(x >= r.above) {
				r.heap = append(r.heap, candidate{int32(at + i), x})
			}
		}
	}
	r.above = floor
	for i := len(r.heap)/2 - 1; i >= 0; i-- {
		sift(r.heap, i)
	}
}

// sift moves element i of a heap down to its place.
func sift(heap []candidate, i int) {
	for {
		child := 2*i + 1
		if child >= len(heap) {
			return
		}
		if child+1 < len(heap) && heap[child+1].before(heap[child]) {
			child++
		}
		if !heap[child].before(heap[i]) {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}
