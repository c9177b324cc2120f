package layers_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/layers"
)

// TestJoinedActivations: in mixed precision the ops of a model-sized MLP are replaced by ops that
// fuse its products with what lies between them, in the forward and the backward pass, and the
// gradients are close to those in float32. Where the backward pass recomputes y, its products
// remain separate ops.
func TestJoinedActivations(t *testing.T) {
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF = 13, 1024, 16
	m.Layers.Pattern = []layers.Place{{Mixer: "mlp"}, {Mixer: "mlp"}}
	const length = 256
	plan := func(mixed bool, limit int64) *graph.Plan {
		b := layers.NewBuilder(layers.Precision{Mixed: mixed})
		loss := m.Loss(b, b.Input("tokens", graph.Int32, 1, length), b.Input("targets", graph.Int32, 1, length))
		b.Result("loss", loss)
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		b.SetArenaLimit(limit)
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	exact, joined := plan(false, 0), plan(true, 0)
	for _, c := range []struct {
		name string
		plan *graph.Plan
		want map[string]int
	}{
		{"float32", exact, map[string]int{"swiglu": 2, "swiglu_backward": 2, "linear_swiglu_kept": 0, "linear_swiglu_backward": 0}},
		{"mixed", joined, map[string]int{"swiglu": 0, "swiglu_backward": 0, "linear_swiglu_kept": 2, "linear_swiglu_backward": 2, "linear": 0, "linear_dw": 6}},
		{"mixed, y made again", plan(true, int64(4*joined.Sizes[graph.Arena])-1), map[string]int{"linear_swiglu_kept": 2, "swiglu_backward_again": 1, "linear_swiglu_backward": 1}},
	} {
		count := map[string]int{}
		for _, s := range c.plan.Steps {
			count[s.Spec.Name]++
		}
		for name, want := range c.want {
			if count[name] != want {
				t.Errorf("%s: %d %s, want %d: %v", c.name, count[name], name, want, count)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	weights, tokens := map[string][]float64{}, make([]float64, length)
	for i := range tokens {
		tokens[i] = float64(rng.IntN(m.VocabSize))
	}
	run := func(p *graph.Plan) *reference.Memory {
		mem := reference.NewMemory(p)
		for _, q := range p.Params {
			if weights[q.Name] == nil {
				w := make([]float32, q.Shape.Size())
				q.Init(rng, w)
				for _, x := range w {
					weights[q.Name] = append(weights[q.Name], float64(x))
				}
			}
			mem.Write(slot(q, graph.Params), weights[q.Name])
		}
		mem.Write(p.Inputs["tokens"], tokens)
		mem.Write(p.Inputs["targets"], tokens)
		if err := mem.Run(p); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	of, from := run(joined), run(exact)
	for _, q := range exact.Params {
		want, got := from.Read(slot(q, graph.Grads)).Data, of.Read(slot(q, graph.Grads)).Data
		if e := offBy(got, want); !(e < 0.02) {
			t.Errorf("the gradient of %s is off by %.2g", q.Name, e)
		}
	}
}
