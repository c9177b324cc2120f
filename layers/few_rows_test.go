package layers_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/layers"
)

// TestFewRows: a mixed-precision plan for one token of a few sequences fuses products with the
// preceding norm and the following gate, and its result is close to that of a float32 plan. A plan
// with many rows fuses only q, k and v.
func TestFewRows(t *testing.T) {
	m := layers.Defaults()
	m.VocabSize, m.DModel = 61, 64
	for _, name := range []string{"mamba", "mlp", "swa", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Attention.Heads, m.Attention.KVHeads, m.Attention.Window, m.MLP.DFF = 4, 2, 8, 80
	const calls = 3
	rng := rand.New(rand.NewPCG(1, 2))
	weights := map[string][]float64{}
	run := func(rows int, mixed bool) (map[string]int, []float64) {
		b := layers.NewBuilder(layers.Precision{Mixed: mixed})
		b.SetCarry(graph.Carry{Positions: 8})
		b.Result("logits", m.LastLogits(b, b.Input("tokens", graph.Int32, rows, 1)))
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		mem := reference.NewMemory(p)
		for _, q := range p.Params {
			w := weights[q.Name]
			for i := len(w); i < q.Shape.Size(); i++ {
				w = append(w, 0.2*rng.NormFloat64())
			}
			weights[q.Name] = w
			mem.Write(slot(q, graph.Params), w)
		}
		var all []float64
		for call := range calls {
			tokens, positions := make([]float64, rows), make([]float64, rows)
			for i := range rows {
				tokens[i], positions[i] = float64((7*i+call)%m.VocabSize), float64(call)
			}
			mem.Write(p.Inputs["tokens"], tokens)
			mem.Write(p.Inputs[graph.PositionInput], positions)
			if err := mem.Run(p); err != nil {
				t.Fatal(err)
			}
			all = append(all, mem.Read(p.Results["logits"]).Data...)
		}
		count := map[string]int{}
		for _, s := range p.Steps {
			count[s.Spec.Name]++
		}
		return count, all
	}
	for _, c := range []struct {
		rows int
		want map[string]int
	}{
		// q with k and v, and the head; in_proj with the convolution; x_proj; dt_proj is fused into
		// the scan.
		{3, map[string]int{"linear_normed": 1, "linear_normed_precise": 1, "linear_normed_convolved": 1, "linear_normed_gated": 2, "linear": 1, "causal_conv_carry": 0, "selective_scan_projected_carry": 1, "linear_add": 4, "attention_rotary_carry": 1, "rope_carry": 0, "rms_norm": 0, "swiglu": 0, "linear_swiglu": 0}},
		{graph.FewRows, map[string]int{"linear_normed": 1, "linear_normed_gated": 2, "rms_norm": 0, "linear_swiglu": 0}},
		{graph.FewRows + 1, map[string]int{"linear_normed": 0, "linear_normed_gated": 0, "linear": 4, "linear_precise": 1, "linear_add": 4, "attention_rotary_carry": 1, "rope_carry": 0, "rms_norm": 5, "linear_swiglu": 2}},
	} {
		_, exact := run(c.rows, false)
		count, got := run(c.rows, true)
		for name, want := range c.want {
			if count[name] != want {
				t.Errorf("%d rows: %d %s, want %d: %v", c.rows, count[name], name, want, count)
			}
		}
		var off, all float64
		for i, w := range exact {
			off += (got[i] - w) * (got[i] - w)
			all += w * w
		}
		if e := math.Sqrt(off / all); !(e < 0.02) {
			t.Errorf("%d rows: logits are off by %.2g", c.rows, e)
		}
	}
}
