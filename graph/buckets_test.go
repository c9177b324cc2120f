package graph_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/all_reduce"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// TestBuckets: every element is in a bucket, and each bucket is divided among the processes into
// pieces of whole cache lines.
func TestBuckets(t *testing.T) {
	for _, c := range []struct{ n, size, processes, length int }{
		{1, 1, 1, 16}, {100, 48, 3, 144}, {1000, 64, 4, 1024}, {1 << 20, 1 << 30, 7, 1<<20 + 80}, {64, 1, 2, 64},
	} {
		b := graph.NewBuckets(c.n, c.size, c.processes)
		if b.Length != c.length {
			t.Errorf("%+v: %d elements in all, want %d", c, b.Length, c.length)
		}
		next := 0
		for from, n := range b.All() {
			if from != next || n <= 0 || n%(16*c.processes) != 0 {
				t.Errorf("%+v: a bucket of %d elements from %d on, behind %d", c, n, from, next)
			}
			next = from + n
		}
		if next != b.Length {
			t.Errorf("%+v: the buckets end at %d of %d", c, next, b.Length)
		}
	}
}

// TestReduction: each bucket is exchanged once, after the last step that writes to it and, where
// possible, before the end of the backward pass.
func TestReduction(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 2, 8)
	for range 6 {
		x = b.Apply(mul(), x, b.Param("p"+string(rune('0'+len(b.Params()))), nil, 1, 2, 8))
	}
	b.SetReduction(graph.Reduction{Op: all_reduce.Spec(), Buckets: graph.NewBuckets(b.ParamsLength(), 32, 1)})
	if err := b.Gradients(b.Apply(total(1), x)); err != nil {
		t.Fatal(err)
	}
	p := compile(t, b)
	var exchanged []int
	written := map[int]bool{}
	for i, s := range p.Steps {
		for _, o := range s.Out {
			if o.Region != graph.Grads {
				continue
			}
			if s.Spec.Name == "all_reduce" {
				exchanged = append(exchanged, o.Offset/32)
				if !written[o.Offset/32] {
					t.Errorf("step %d exchanges bucket %d before anything is in it", i, o.Offset/32)
				}
				continue
			}
			if slices.Contains(exchanged, o.Offset/32) {
				t.Errorf("step %d writes to bucket %d, which was exchanged before", i, o.Offset/32)
			}
			written[o.Offset/32] = true
		}
	}
	// The backward pass begins with the last parameters.
	if want := []int{2, 1, 0}; !slices.Equal(exchanged, want) {
		t.Errorf("buckets are exchanged in the order %v, want %v\n%v", exchanged, want, p)
	}
}

// TestReductionOfWholeBuckets: a bucket is exchanged after the last step that writes or reads any
// part of it, also a gradient that is longer than a bucket, and also if nothing of it is a gradient.
func TestReductionOfWholeBuckets(t *testing.T) {
	const size = 32
	for _, rounds := range []bool{false, true} {
		t.Run(fmt.Sprintf("rounds %v", rounds), func(t *testing.T) {
			b := newBuilder()
			// The gradient of c is also that of the sum's other term, which more is computed from.
			a, c, e := b.Param("a", nil, 1, 2, 40), b.Param("c", nil, 1, 2, 40), b.Param("e", nil, 1, 2, 40)
			x := b.Apply(mul(), b.Input("x", graph.Float32, 1, 2, 40), a)
			x = b.Add(b.Apply(mul(), x, b.Param("f", nil, 1, 2, 40)), c)
			r := graph.Reduction{Op: all_reduce.Spec(), Buckets: graph.NewBuckets(400, size, 1)}
			if rounds {
				r.Round = round.Spec()
			}
			b.SetReduction(r)
			if err := b.Gradients(b.Apply(total(1), b.Apply(mul(), x, e))); err != nil {
				t.Fatal(err)
			}
			p := compile(t, b)
			exchanged := make([]bool, r.Buckets.Count())
			for i, s := range p.Steps {
				moves := s.Spec.Name == "all_reduce" || s.Spec.Name == "round"
				for _, slot := range slices.Concat(s.In, s.Out) {
					if slot.Region != graph.Grads {
						continue
					}
					for k := slot.Offset / size; k <= (slot.Offset+slot.Shape.Size()-1)/size; k++ {
						if exchanged[k] && !moves {
							t.Errorf("step %d (%s) uses bucket %d, which was exchanged before", i, s.Spec.Name, k)
						}
						exchanged[k] = exchanged[k] || moves
					}
				}
			}
			if slices.Contains(exchanged, false) {
				t.Errorf("not all buckets are exchanged: %v", exchanged)
			}
			if t.Failed() {
				t.Log(p)
			}
		})
	}
}

// TestReductionOverlaps: what a bucket's sum is rounded to is converted back once the next exchange
// has begun.
func TestReductionOverlaps(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 2, 8)
	for range 3 {
		x = b.Apply(mul(), x, b.Param("p"+string(rune('0'+len(b.Params()))), nil, 1, 2, 8))
	}
	b.SetReduction(graph.Reduction{Op: all_reduce.Spec(), Buckets: graph.NewBuckets(b.ParamsLength(), 16, 1), Round: round.Spec()})
	if err := b.Gradients(b.Apply(total(1), x)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range compile(t, b).Steps {
		switch {
		case s.Spec.Name == "all_reduce":
			got = append(got, "exchange")
		case s.Spec.Name == "round" && s.Out[0].Region == graph.Grads:
			got = append(got, "back")
		}
	}
	if want := []string{"exchange", "exchange", "back", "exchange", "back", "back"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestShortBuckets: buckets that do not hold all gradients are rejected.
func TestShortBuckets(t *testing.T) {
	b := newBuilder()
	x := b.Apply(mul(), b.Input("x", graph.Float32, 1, 2, 8), b.Param("p", nil, 1, 2, 8))
	x = b.Apply(mul(), x, b.Param("q", nil, 1, 2, 8))
	b.SetReduction(graph.Reduction{Op: all_reduce.Spec(), Buckets: graph.NewBuckets(16, 16, 1)})
	if err := b.Gradients(b.Apply(total(1), x)); err != nil {
		t.Fatal(err)
	}
	_, err := b.Compile()
	wantError(t, err, "buckets of 16 elements for 32 gradients")
}
