package generate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/sambatrain/sambatrain/graph/cpu/simd"
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
	config  SamplerConfig
	rng     *rand.Rand
	weights weights
	ranking ranking
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
	logits = logits[:s.config.Vocab]
	best := Best(logits)
	if s.config.Temperature == 0 {
		return best
	}
	s.weights.begin(logits[best], s.config.Temperature)
	if s.config.TopP < 1 || s.config.TopK > 0 && s.config.TopK < len(logits) {
		return s.among(logits)
	}
	return s.weights.find(logits, s.rng.Float64()*s.weights.sum(logits), best)
}

// among draws one of the likeliest tokens. They are ranked as far as the draw needs it, a few
// of them as a rule, so that the vocabulary is not sorted for each token.
func (s *Sampler) among(logits []float32) int32 {
	r, w := &s.ranking, &s.weights
	r.begin(logits, s.config.Temperature)
	kept, sum := len(logits), 0.0
	if k := s.config.TopK; k > 0 && k < kept {
		kept = k
		for i := range kept {
			sum += w.of(r.at(i).score)
		}
	} else {
		sum = w.sum(logits)
	}
	if s.config.TopP < 1 {
		mass, n := 0.0, 0
		for ; n < kept && mass < s.config.TopP*sum; n++ {
			mass += w.of(r.at(n).score)
		}
		kept, sum = n, mass
	}
	draw := s.rng.Float64() * sum
	for i := range kept {
		if draw -= w.of(r.at(i).score); draw < 0 {
			return r.at(i).token
		}
	}
	return r.at(max(0, kept-1)).token
}

// block is the scores that are looked through at once.
const block = 256

// Best is the first of the tokens with the highest score.
func Best(logits []float32) int32 {
	top, first := float32(math.Inf(-1)), 0
	for at := 0; at < len(logits); at += block {
		if x := simd.Max(logits[at:min(at+block, len(logits))]); x > top {
			top, first = x, at
		}
	}
	return int32(first + max(0, slices.Index(logits[first:], top)))
}

// weights are exp((score - best) / temperature).
type weights struct {
	best        float32
	temperature float64
	sums        []float64 // of blocks
	room, least [block]float32
}

func (w *weights) begin(best float32, temperature float64) {
	w.best, w.temperature = best, temperature
	for i := range w.least {
		w.least[i] = -best
	}
}

// of is a score's.
func (w *weights) of(score float32) float64 {
	return math.Exp((float64(score) - float64(w.best)) / w.temperature)
}

// ofBlock are those of at most a block of scores, good until the next call, and their sum.
func (w *weights) ofBlock(scores []float32) ([]float32, float64) {
	x := w.room[:len(scores)]
	simd.Add(x, scores, w.least[:len(scores)])
	simd.Scale(x, float32(min(1/w.temperature, math.MaxFloat32)), x)
	return x, float64(simd.SoftmaxExp(x, x, 0))
}

// sum is that of all scores.
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

// find is the token at which the weights of all up to it exceed draw, or best where rounding
// leaves none. It comes after sum.
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
