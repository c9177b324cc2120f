package graph_test

import (
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/all_reduce"
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
