package layers_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/layers"
)

// TestLastLogits: the logits of the last token alone are those among the logits of all tokens, and
// the sublayers after the last one that mixes tokens compute one token only.
func TestLastLogits(t *testing.T) {
	for _, c := range []struct {
		pattern string
		mixes   int // the last sublayer that mixes tokens
	}{
		{"mamba mlp swa mlp", 2}, {"mlp swa", 1}, {"mamba mlp mlp", 0}, {"mlp mlp", -1},
	} {
		for _, length := range []int{1, 2, 5} {
			t.Run(fmt.Sprintf("%s, %d tokens", c.pattern, length), func(t *testing.T) {
				m := small(c.pattern, 1, true)
				stack, err := m.Sublayers()
				if err != nil {
					t.Fatal(err)
				}
				if got := layers.LastMixing(stack); got != c.mixes {
					t.Errorf("the last sublayer that mixes tokens is %d, want %d", got, c.mixes)
				}
				weights := compileSmall(t, m).w
				logits := func(build func(b *graph.Builder, tokens graph.Tensor) graph.Tensor) (graph.Array, *graph.Plan) {
					b := layers.NewBuilder(layers.Precision{})
					b.Result("logits", build(b, b.Input("tokens", graph.Int32, rows, length)))
					p, err := b.Compile()
					if err != nil {
						t.Fatal(err)
					}
					mem := reference.NewMemory(p)
					for _, q := range p.Params {
						mem.Write(slot(q, graph.Params), weights[q.Name])
					}
					ids := make([]float64, rows*length)
					for i := range ids {
						ids[i] = float64((5*i + 3) % m.VocabSize)
					}
					mem.Write(p.Inputs["tokens"], ids)
					if err := mem.Run(p); err != nil {
						t.Fatal(err)
					}
					return mem.Read(p.Results["logits"]), p
				}
				all, _ := logits(m.Logits)
				last, p := logits(m.LastLogits)
				if want := (graph.Shape{rows, 1, m.VocabSize}); !last.Shape.Equal(want) {
					t.Fatalf("logits are %v, want %v", last.Shape, want)
				}
				for i := range rows {
					want := all.Row(i*length + length - 1)
					if !slices.EqualFunc(last.Row(i), want, func(x, y float64) bool { return math.Abs(x-y) <= 1e-12 }) {
						t.Errorf("row %d: logits are %v, want %v", i, last.Row(i), want)
					}
				}
				for _, s := range p.Steps {
					for k, name := range m.Layers.Pattern {
						alone := k > c.mixes && length > 1
						if s.Path == fmt.Sprintf("model.layers.%d.mixer", k) && alone && s.In[0].Shape[1] != 1 {
							t.Errorf("%s of sublayer %d (%s) reads %v", s.Spec.Name, k, name.Mixer, s.In[0].Shape)
						}
					}
				}
			})
		}
	}
}

// TestCacheGrows: only full attention needs more memory for a longer text.
func TestCacheGrows(t *testing.T) {
	for _, name := range layers.Mixers {
		if got, want := small(name+" mlp", 1, true).CacheGrows(), name == "attn"; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
