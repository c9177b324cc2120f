// Package sample draws tokens from their logits on the device: from all tokens, from the k most
// likely ones (top-k), or from the fewest whose probabilities sum to p (top-p, arXiv 1904.09751).
package sample

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// Settings say how one token is drawn.
type Settings struct {
	// Temperature divides the logits; 0 takes the largest one, the first if several are equal.
	Temperature float64
	// TopK keeps the k largest logits; 0 keeps all.
	TopK int
	// TopP keeps the fewest tokens, the most likely first, whose probabilities sum to at least p; 1
	// keeps all.
	TopP float64
	// Uniform is a random number in [0, 1). The kept tokens divide [0, 1) in proportion to their
	// probabilities, in order of token id if all are kept, and otherwise the most likely first. The
	// token at Uniform is drawn.
	Uniform float64
}

// ranks reports whether only the most likely of n tokens are kept.
func (s Settings) ranks(n int) bool { return s.TopP < 1 || s.TopK > 0 && s.TopK < n }

// Words is the number of int32 values in a row's settings: the bits of Temperature, TopP and
// Uniform, and then TopK. Each has 64 bits, the low half first.
const Words = 8

// Put writes the settings in the format that the op reads.
func (s Settings) Put(words []int32) {
	for i, x := range []uint64{math.Float64bits(s.Temperature), math.Float64bits(s.TopP), math.Float64bits(s.Uniform), uint64(s.TopK)} {
		words[2*i], words[2*i+1] = int32(uint32(x)), int32(uint32(x>>32))
	}
}

func settingsOf(words []int32) Settings {
	at := func(i int) uint64 { return uint64(uint32(words[2*i])) | uint64(uint32(words[2*i+1]))<<32 }
	return Settings{math.Float64frombits(at(0)), int(at(3)), math.Float64frombits(at(1)), math.Float64frombits(at(2))}
}

// Apply draws one of the first n tokens for each row of logits, scores [B 1 V], according to
// settings [B Words] (int32), and writes it to the state token [B 1] (int32).
func Apply(b *graph.Builder, scores, settings, token graph.Tensor, n int) {
	b.Apply(Spec(n), scores, settings, token)
}

// Spec is token[b] = the token v < n at settings[b].Uniform, with probabilities proportional to
// exp(scores[b,v] / Temperature).
func Spec(n int) *graph.Spec {
	return &graph.Spec{
		Name:      "sample",
		Signature: fmt.Sprintf("scores:f32[B 1 V], settings:i32[B %d], token:i32![B 1] ->", Words),
		Dims:      graph.Dims{"N": n},
		Derive: func(d graph.Dims) error {
			if n < 1 || n > d["V"] {
				return fmt.Errorf("one of %d tokens of %d", n, d["V"])
			}
			return nil
		},
		Reference: func(_ graph.Dims, in, _ []graph.Array) {
			for b := range in[0].Shape.Rows() {
				words := make([]int32, Words)
				for i, x := range in[1].Row(b) {
					words[i] = int32(x)
				}
				in[2].Data[b] = float64(reference(in[0].Row(b)[:n], settingsOf(words)))
			}
		},
		CPU:       forward,
		Allocates: true, // memory for the tokens that a draw has to rank
		CUDA:      &graph.CUDA{Source: source, Launches: launches, Workspace: workspace},
		Cost: func(d graph.Dims) graph.Cost {
			scores := float64(d["B"] * n)
			return graph.Cost{FLOPs: (2 + graph.ExpFLOPs) * scores, Bytes: 4 * scores}
		},
	}
}

// reference sorts all tokens.
func reference(scores []float64, s Settings) int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	likeliest := slices.Clone(order)
	slices.SortStableFunc(likeliest, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	if s.Temperature == 0 {
		return likeliest[0]
	}
	weight := func(i int) float64 { return math.Exp((scores[i] - scores[likeliest[0]]) / s.Temperature) }
	sum := func(tokens []int) (all float64) {
		for _, i := range tokens {
			all += weight(i)
		}
		return all
	}
	if s.ranks(len(scores)) {
		order = likeliest
	}
	if s.TopK > 0 {
		order = order[:min(s.TopK, len(order))]
	}
	if s.TopP < 1 {
		n, mass, all := 0, 0.0, sum(order)
		for ; n < len(order) && mass < s.TopP*all; n++ {
			mass += weight(order[n])
		}
		order = order[:n]
	}
	draw := s.Uniform * sum(order)
	for _, i := range order {
		if draw -= weight(i); draw < 0 {
			return i
		}
	}
	return order[len(order)-1]
}
