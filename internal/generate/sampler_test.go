package generate_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/internal/generate"
)

// scores returns log-probabilities of tokens, not sorted by id.
func scores(p ...float64) []float32 {
	x := make([]float32, len(p))
	for i := range p {
		x[i] = float32(math.Log(p[i]))
	}
	return x
}

// TestSamplerFrequencies draws many times: each token must occur as often as its probability says,
// within five standard deviations, and no other token may occur.
func TestSamplerFrequencies(t *testing.T) {
	logits := scores(0.1, 0.4, 0.05, 0.25, 0.2)
	for _, test := range []struct {
		name   string
		config generate.SamplerConfig
		want   []float64
	}{
		{"all", generate.SamplerConfig{Temperature: 1, TopP: 1}, []float64{0.1, 0.4, 0.05, 0.25, 0.2}},
		{"top-k of 2", generate.SamplerConfig{Temperature: 1, TopK: 2, TopP: 1}, []float64{0, 0.4 / 0.65, 0, 0.25 / 0.65, 0}},
		{"top-k of 1", generate.SamplerConfig{Temperature: 1, TopK: 1, TopP: 1}, []float64{0, 1, 0, 0, 0}},
		{"top-k beyond the vocabulary", generate.SamplerConfig{Temperature: 1, TopK: 99, TopP: 1}, []float64{0.1, 0.4, 0.05, 0.25, 0.2}},
		// 0.4 + 0.25 is less than 0.7, so the third is needed too.
		{"top-p", generate.SamplerConfig{Temperature: 1, TopP: 0.7}, []float64{0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85}},
		{"top-p of almost nothing", generate.SamplerConfig{Temperature: 1, TopP: 1e-9}, []float64{0, 1, 0, 0, 0}},
		// Of 0.4, 0.25 and 0.2, which sum to 0.85, the first two are a fraction of 0.76.
		{"top-k, then top-p", generate.SamplerConfig{Temperature: 1, TopK: 3, TopP: 0.75}, []float64{0, 0.4 / 0.65, 0, 0.25 / 0.65, 0}},
		{"a half of the temperature squares", generate.SamplerConfig{Temperature: 0.5, TopP: 1}, []float64{0.01 / 0.275, 0.16 / 0.275, 0.0025 / 0.275, 0.0625 / 0.275, 0.04 / 0.275}},
		{"temperature 0", generate.SamplerConfig{Temperature: 0, TopP: 1}, []float64{0, 1, 0, 0, 0}},
		{"almost temperature 0", generate.SamplerConfig{Temperature: 1e-300, TopP: 1}, []float64{0, 1, 0, 0, 0}},
		{"a vocabulary that is padded", generate.SamplerConfig{Temperature: 1, TopP: 1, Vocab: 3}, []float64{0.1 / 0.55, 0.4 / 0.55, 0.05 / 0.55, 0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.config.Vocab == 0 {
				test.config.Vocab = len(logits)
			}
			test.config.Seed = 42
			s := sampler(t, test.config)
			const draws = 20000
			counts := make([]int, len(logits))
			for range draws {
				counts[s.Next(logits)]++
			}
			for i, p := range test.want {
				deviation := math.Sqrt(draws * p * (1 - p))
				if d := math.Abs(float64(counts[i]) - draws*p); d > 5*deviation {
					t.Errorf("token %d came %d times in %d, want about %.0f", i, counts[i], draws, draws*p)
				}
			}
		})
	}
}

// TestSamplerTies: among equal logits, temperature 0 takes the lowest id.
func TestSamplerTies(t *testing.T) {
	s := sampler(t, generate.SamplerConfig{TopP: 1, Vocab: 4})
	if got := s.Next([]float32{1, 3, 3, 2}); got != 1 {
		t.Errorf("token %d, want 1", got)
	}
	// Many equal logits: an unstable sort would shuffle them.
	logits := make([]float32, 300)
	for i := range logits {
		logits[i] = float32(i % 3)
	}
	s = sampler(t, generate.SamplerConfig{Temperature: 1, TopK: 3, TopP: 1, Vocab: len(logits)})
	for range 100 {
		if got := s.Next(logits); got != 2 && got != 5 && got != 8 {
			t.Fatalf("token %d of 100 equal ones, want one of the first 3", got)
		}
	}
}

// TestSamplerDraws: with a vocabulary of many blocks, tokens are those that the weights in float64
// give: in token order, or among the likeliest in order of likelihood.
func TestSamplerDraws(t *testing.T) {
	const vocab, draws, padding = 3001, 100, 7
	rng := rand.New(rand.NewPCG(8, 9))
	for _, c := range []generate.SamplerConfig{
		{Temperature: 0, TopP: 1}, {Temperature: 0.8, TopP: 1}, {Temperature: 30, TopP: 1}, {Temperature: 0.8, TopP: 0.9},
		{Temperature: 3, TopP: 0.9999}, {Temperature: 1, TopK: 40, TopP: 1}, {Temperature: 2, TopK: 2000, TopP: 0.8},
	} {
		c.Vocab, c.Seed = vocab, 5
		s, uniform := sampler(t, c), rand.New(rand.NewPCG(c.Seed, 0))
		for range draws {
			logits := make([]float32, vocab+padding)
			for i := range logits {
				logits[i] = float32(math.Round(32*rng.NormFloat64())) / 8 // some are equal
			}
			logits[vocab] = 1e6
			if got, want := s.Next(logits), drawn(logits[:vocab], c, uniform); got != want {
				t.Fatalf("%+v: token %d, want %d", c, got, want)
			}
		}
	}
}

// drawn returns the token that a sampler should draw, computed by sorting all of them.
func drawn(logits []float32, c generate.SamplerConfig, uniform *rand.Rand) int32 {
	var order []int32
	for i := range logits {
		order = append(order, int32(i))
	}
	likeliest := slices.Clone(order)
	slices.SortStableFunc(likeliest, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
	if c.Temperature == 0 {
		return likeliest[0]
	}
	weight := func(i int32) float64 {
		return math.Exp((float64(logits[i]) - float64(logits[likeliest[0]])) / c.Temperature)
	}
	sum := func(tokens []int32) (s float64) {
		for _, i := range tokens {
			s += weight(i)
		}
		return s
	}
	if c.TopK > 0 || c.TopP < 1 {
		order = likeliest
	}
	if c.TopK > 0 {
		order = order[:c.TopK]
	}
	if c.TopP < 1 {
		n, mass, all := 0, 0.0, sum(order)
		for ; n < len(order) && mass < c.TopP*all; n++ {
			mass += weight(order[n])
		}
		order = order[:n]
	}
	draw := uniform.Float64() * sum(order)
	for _, i := range order {
		if draw -= weight(i); draw < 0 {
			return i
		}
	}
	return order[len(order)-1]
}

// TestBestOfOddScores: NaNs are not likely.
func TestBestOfOddScores(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		scores []float32
		want   int32
	}{{[]float32{nan, 1, 2, nan}, 2}, {[]float32{-inf, -inf}, 0}, {[]float32{nan, nan}, 0}, {[]float32{1, inf, inf}, 1}, {[]float32{nan, -inf}, 1}} {
		if got := generate.Best(c.scores); got != c.want {
			t.Errorf("%v: token %d, want %d", c.scores, got, c.want)
		}
	}
}

func TestSamplerSeed(t *testing.T) {
	draws := func(seed uint64) (out string) {
		s := sampler(t, generate.SamplerConfig{Temperature: 1, TopP: 1, Vocab: 4, Seed: seed})
		for range 40 {
			out += fmt.Sprint(s.Next([]float32{1, 1, 1, 1}))
		}
		return out
	}
	if first, again, other := draws(1), draws(1), draws(2); first != again || first == other {
		t.Errorf("seed 1 draws %s and %s, seed 2 %s", first, again, other)
	}
}

func TestSamplerRefuses(t *testing.T) {
	good := generate.SamplerConfig{Temperature: 1, TopP: 1, Vocab: 4}
	for _, test := range []struct {
		want   string
		change func(c *generate.SamplerConfig)
	}{
		{"temperature", func(c *generate.SamplerConfig) { c.Temperature = -1 }},
		{"temperature", func(c *generate.SamplerConfig) { c.Temperature = math.NaN() }},
		{"temperature", func(c *generate.SamplerConfig) { c.Temperature = math.Inf(1) }},
		{"top-k", func(c *generate.SamplerConfig) { c.TopK = -1 }},
		{"top-p", func(c *generate.SamplerConfig) { c.TopP = 0 }},
		{"top-p", func(c *generate.SamplerConfig) { c.TopP = 1.1 }},
		{"top-p", func(c *generate.SamplerConfig) { c.TopP = math.NaN() }},
		{"vocabulary", func(c *generate.SamplerConfig) { c.Vocab = 0 }},
	} {
		c := good
		test.change(&c)
		if _, err := generate.NewSampler(c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
