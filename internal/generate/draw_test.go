package generate

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestDraw: tokens drawn on several threads are those that each row's sampler draws alone, and rows
// without a sequence draw none.
func TestDraw(t *testing.T) {
	const rows, vocab, empty = 9, 1 << 16, 4
	batch := func() *Batch {
		b := &Batch{rows: make([]*row, rows), drawn: make([]int32, rows), vocab: vocab}
		for i := range b.rows {
			s, err := NewSampler(SamplerConfig{Temperature: float64(i % 3), TopP: 1 - 0.1*float64(i%2), Vocab: vocab, Seed: uint64(i)})
			if err != nil {
				t.Fatal(err)
			}
			if b.drawn[i] = -1; i != empty {
				b.rows[i] = &row{Request: Request{Sampler: s}}
			}
		}
		return b
	}
	together, alone := batch(), batch()
	rng := rand.New(rand.NewPCG(1, 2))
	scores := make([]float32, rows*vocab)
	for range 5 {
		for i := range scores {
			scores[i] = float32(5 * rng.NormFloat64())
		}
		together.draw(scores)
		for i, r := range alone.rows {
			if r != nil {
				alone.drawn[i] = r.Sampler.Next(scores[i*vocab:][:vocab])
			}
		}
		if !slices.Equal(together.drawn, alone.drawn) {
			t.Fatalf("%v together, %v alone", together.drawn, alone.drawn)
		}
	}
}
