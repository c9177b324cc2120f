package generate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
)

// SamplerConfig says how a token is drawn from its logits.
type SamplerConfig struct {
	// Temperature divides the logits; 0 takes the largest one.
	Temperature float64
	// TopK keeps the k largest logits; 0 keeps all.
	TopK int
	// TopP keeps the fewest tokens whose probabilities sum to at least p
	// (arXiv 1904.09751); 1 keeps all.
	TopP float64
	// Vocab is the number of logits that are tokens; the rest pads the vocabulary.
	Vocab int
	Seed  uint64
}

// Sampler draws tokens. The same seed and logits give the same tokens.
type Sampler struct {
	config SamplerConfig
	rng    *rand.Rand
	drawer sample.Drawer
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

// Next draws one token. logits has at least Vocab elements.
func (s *Sampler) Next(logits []float32) int32 {
	return s.drawer.Draw(logits[:s.config.Vocab], s.settings())
}

// settings returns the settings of the next draw.
func (s *Sampler) settings() sample.Settings {
	c := sample.Settings{Temperature: s.config.Temperature, TopK: s.config.TopK, TopP: s.config.TopP}
	if c.Temperature > 0 {
		c.Uniform = s.rng.Float64()
	}
	return c
}

// Best returns the first of the tokens with the largest logit.
func Best(logits []float32) int32 { return int32(simd.ArgMax(logits)) }
