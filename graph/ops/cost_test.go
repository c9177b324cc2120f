package ops_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
	"github.com/sambatrain/sambatrain/graph/ops/attention"
	"github.com/sambatrain/sambatrain/graph/ops/chunk_attention"
)

// moves is how many elements of an operand an op reads and writes, where that is not all of them
// once, or twice if the operand is updated.
var moves = map[string]func(d graph.Dims) int{
	"adamw_mixed shadow":           func(d graph.Dims) int { return d["M"] },
	"all_gather x":                 func(d graph.Dims) int { return d["N"] },
	"cast_weights shadow":          func(d graph.Dims) int { return d["M"] },
	"zero x":                       func(d graph.Dims) int { return d["N"] },
	"last_token x":                 func(d graph.Dims) int { return d["B"] * d["D"] },
	"embedding w":                  func(d graph.Dims) int { return d["B"] * d["T"] * d["D"] },
	"embedding_next w":             func(d graph.Dims) int { return d["B"] * d["D"] },
	"attention_keep k":             kept,
	"attention_keep v":             kept,
	"attention_keep key":           kept,
	"attention_keep value":         kept,
	"attention_carry key":          carried,
	"attention_carry value":        carried,
	"attention_rotary_carry key":   carried,
	"attention_rotary_carry value": carried,
	"chunk_attention_carry key":    func(d graph.Dims) int { return d["B"] * (d["W"] + d["T"]) * d["D"] },
	"chunk_attention_carry value":  func(d graph.Dims) int { return d["B"] * (d["W"] + d["T"]) * d["C"] },
	"argmax scores":                scored,
	"sample scores":                scored,
	"sample settings":              func(graph.Dims) int { return 0 },
}

// kept is the last tokens of each row that its states hold.
func kept(d graph.Dims) int { return d["B"] * min(d["T"], d["W"]) * d["K"] * d["D"] }

// scored is the scores of the tokens that can be chosen.
func scored(d graph.Dims) int { return d["B"] * d["N"] }

// carried is all that a state holds, which is read, and the new tokens, which are written.
func carried(d graph.Dims) int { return d["B"] * (d["W"] + d["T"]) * d["K"] * d["D"] }

// TestBytes compares the bytes of each op's Cost with its operands'. A Cost may leave out operands
// that are small beside the largest, and vectors.
func TestBytes(t *testing.T) {
	for _, op := range ops.All() {
		for _, c := range op.Cases() {
			r, err := c.Spec.ResolveDims(c.Dims)
			if err != nil {
				t.Fatal(err)
			}
			checkBytes(t, c.Name, r)
			if c.Spec.Gradient == nil || op.Name == "add" {
				continue
			}
			for _, s := range backward(t, r) {
				checkBytes(t, c.Name, s.Resolved)
			}
		}
	}
}

func checkBytes(t *testing.T, name string, r *graph.Resolved) {
	t.Helper()
	spec := r.Spec.Name
	var counts, vectors []int
	for _, o := range slices.Concat(r.In, r.Out) {
		n := o.Shape.Size()
		if o.Updated {
			n *= 2
		}
		if of := moves[spec+" "+o.Name]; of != nil {
			n = of(r.Dims)
		}
		if len(o.Shape) < 2 || o.Name == "start" { // of documents: one number for each token
			vectors = append(vectors, n)
		} else {
			counts = append(counts, n)
		}
	}
	if len(counts) == 0 {
		counts, vectors = vectors, nil
	}
	least, most := 0, 0
	for _, n := range counts {
		most += 4 * n
		if n > slices.Max(counts)/5 {
			least += 4 * n
		}
	}
	for _, n := range vectors {
		most += 4 * n
	}
	const small = 100 // elements, of which nothing is small
	if got := r.Spec.Cost(r.Dims).Bytes; slices.Max(counts) > small && !(float64(least) <= got && got <= float64(most)) {
		t.Errorf("%s/%s: costs %v bytes, its operands have %d to %d", spec, name, got, least, most)
	}
}

// TestVisiblePairs counts the pairs of a query and a key that the products of attention are for.
func TestVisiblePairs(t *testing.T) {
	const b, tokens, heads, dim, width = 2, 23, 4, 8, 6
	pairs := func(sees func(query, key int) bool) (n float64) {
		for q := range tokens {
			for k := range q + 1 {
				if sees(q, k) {
					n++
				}
			}
		}
		return n
	}
	check := func(name string, s *graph.Spec, d graph.Dims, products, exponentials float64) {
		t.Helper()
		r, err := s.ResolveDims(d)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Cost(r.Dims); got.Products != products || got.FLOPs != products+graph.ExpFLOPs*exponentials {
			t.Errorf("%s: costs %+v, want %v in products and %v exponentials", name, got, products, exponentials)
		}
	}
	for _, window := range []int{0, 1, 5, 23, 40} {
		n := b * heads * pairs(func(q, k int) bool { return window == 0 || q-k < window })
		c := attention.Config{Heads: heads, KVHeads: 2, HeadDim: dim, Window: window}
		check(fmt.Sprint("window ", window), attention.Spec(c), graph.Dims{"B": b, "T": tokens}, 4*dim*n, n)
	}
	for _, chunk := range []int{1, 5, 23, 40} {
		n := b * pairs(func(q, k int) bool { return q/chunk == k/chunk })
		d := graph.Dims{"B": b, "T": tokens, "D": dim, "C": width, "W": chunk}
		check(fmt.Sprint("chunks of ", chunk), chunk_attention.Spec(), d, 2*(dim+width)*n, n)
	}
	d := graph.Dims{"B": b, "T": tokens, "D": dim, "C": width, "W": 40}
	check("carried chunk", chunk_attention.CarrySpec(), d, 2*(dim+width)*b*tokens*40, b*tokens*40)
	c := attention.Config{Heads: heads, KVHeads: 2, HeadDim: dim, Window: 40}
	check("carried window", attention.CarrySpec(c), graph.Dims{"B": b, "T": tokens, "W": 40}, 4*dim*b*heads*tokens*40, b*heads*tokens*40)
}
