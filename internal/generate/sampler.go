package generate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// SamplerConfig says how a token is drawn from its scores.
type SamplerConfig struct {
	// Temperature divides the scores; 0 takes the highest one.
	Temperature float64
	// TopK keeps the k highest scores; 0 keeps all.
	TopK int
	// TopP keeps the fewest tokens whose probabilities sum to at least p
	// (arXiv 1904.09751); 1 keeps all.
	TopP float64
	// Vocab is how many of the scores are tokens; the rest pad the vocabulary.
	Vocab int
	Seed  uint64
}

// Sampler draws tokens. The same seed and scores give the same tokens.
type Sampler struct {
	config SamplerConfig
	rng    *rand.Rand
	heap   []candidate
	order  []candidate // what was taken from the heap
}

type candidate struct {
	token int32
	score float32
}

// before orders candidates, the likeliest first. Ties go by the ids, so that the draw is
// the same everywhere.
func (c candidate) before(d candidate) bool {
	return c.score > d.score || c.score == d.score && c.token < d.token
}

// NewSampler checks the settings.
func NewSampler(c SamplerConfig) (*Sampler, error) {
	switch {
	case !(c.Temperature >= 0) || math.IsInf(c.Temperature, 0):
		return nil, fmt.Errorf("temperature: must be a number of at least 0, is %v", c.Temperature)
	case c.TopK < 0:
		return nil, fmt.Errorf("top-k: must be at least 1, or 0 for all, is %d", c.TopK)
	case !(c.TopP > 0 && c.TopP <= 1):
		return nil, fmt.Errorf("top-p: must be above 0 and at most 1, is %v", c.TopP)
	case c.Vocab < 1:
		return nil, errors.New("sampler: the vocabulary is empty")
	}
	return &Sampler{config: c, rng: rand.New(rand.NewPCG(c.Seed, 0))}, nil
}

// Next draws one token. logits has at least Vocab scores.
//
// Tokens are taken from a heap, the likeliest first, as far as the draw needs them: a few
// of them as a rule, so that the vocabulary is not sorted for each token.
func (s *Sampler) Next(logits []float32) int32 {
	logits = logits[:s.config.Vocab]
	best := Best(logits)
	if s.config.Temperature == 0 {
		return best
	}
	s.order, s.heap = s.order[:0], s.heap[:0]
	for i, x := range logits {
		s.heap = append(s.heap, candidate{int32(i), x})
	}
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		sift(s.heap, i)
	}
	weight := func(x float32) float64 {
		return math.Exp((float64(x) - float64(logits[best])) / s.config.Temperature)
	}
	kept, sum := len(logits), 0.0
	if k := s.config.TopK; k > 0 && k < kept {
		kept = k
		for i := range kept {
			sum += weight(s.likeliest(i).score)
		}
	} else {
		for _, x := range logits {
			sum += weight(x)
		}
	}
	if s.config.TopP < 1 {
		mass, n := 0.0, 0
		for ; n < kept && mass < s.config.TopP*sum; n++ {
			mass += weight(s.likeliest(n).score)
		}
		kept, sum = n, mass
	}
	draw := s.rng.Float64() * sum
	for i := range kept {
		if draw -= weight(s.likeliest(i).score); draw < 0 {
			return s.likeliest(i).token
		}
	}
	return s.likeliest(max(0, kept-1)).token
}

// likeliest is candidate i of all in their order. Those before it were asked for before.
func (s *Sampler) likeliest(i int) candidate {
	if i == len(s.order) {
		last := len(s.heap) - 1
		s.order = append(s.order, s.heap[0])
		s.heap[0] = s.heap[last]
		s.heap = s.heap[:last]
		sift(s.heap, 0)
	}
	return s.order[i]
}

// sift moves element i of a heap down to where it belongs.
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

// Best is the first of the tokens with the highest score.
func Best(logits []float32) int32 {
	best := 0
	for i, x := range logits {
		if x > logits[best] {
			best = i
		}
	}
	return int32(best)
}
