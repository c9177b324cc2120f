package generate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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
	order  []candidate
}

type candidate struct {
	token int32
	score float64 // then its probability
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
func (s *Sampler) Next(logits []float32) int32 {
	s.order = s.order[:0]
	for i, x := range logits[:s.config.Vocab] {
		s.order = append(s.order, candidate{int32(i), float64(x)})
	}
	// Ties keep the order of the ids, so that the draw is the same everywhere.
	slices.SortStableFunc(s.order, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	if s.config.Temperature == 0 {
		return s.order[0].token
	}
	kept := s.order
	if k := s.config.TopK; k > 0 && k < len(kept) {
		kept = kept[:k]
	}
	sum, top := 0.0, kept[0].score
	for i := range kept {
		kept[i].score = math.Exp((kept[i].score - top) / s.config.Temperature)
		sum += kept[i].score
	}
	mass := 0.0
	for i := range kept {
		mass += kept[i].score
		if mass >= s.config.TopP*sum {
			kept = kept[:i+1]
			break
		}
	}
	draw := s.rng.Float64() * mass
	for _, c := range kept {
		if draw -= c.score; draw < 0 {
			return c.token
		}
	}
	return kept[len(kept)-1].token
}
