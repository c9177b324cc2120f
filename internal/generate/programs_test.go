package generate

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

// TestProgramsShareStates: all programs of an engine have the same states, in any precision, and
// mixed precision keeps attention's caches in bfloat16, except in float32 sublayers.
func TestProgramsShareStates(t *testing.T) {
	m := layers.Defaults()
	m.VocabSize, m.DModel = 64, 32
	for _, name := range []string{"mamba", "swa", "attn", "gla", "retention", "mega", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Attention.Window, m.MLP.DFF = 8, 48
	m.Mega.ZDim, m.Mega.Chunk = 8, 10
	for _, p := range []layers.Precision{{}, {Mixed: true}, {Mixed: true, Float32Sublayers: 2}} {
		base, err := plan(&m, 2, shape{want: wantLast, tokens: 16, begins: true}, 100, p)
		if err != nil {
			t.Fatal(err)
		}
		if len(base.States) < 7 {
			t.Errorf("%d states only", len(base.States))
		}
		for name, s := range base.States {
			cache := strings.HasPrefix(name, "model.layers.1.") && p.Float32Sublayers < 2 || strings.HasPrefix(name, "model.layers.2.") // swa and attn
			if got := s.DType == graph.BFloat16; got != (p.Mixed && cache) {
				t.Errorf("%+v: state %s is %v", p, name, s.DType)
			}
		}
		for _, s := range []shape{{want: wantLast, tokens: 1}, {want: wantLast, tokens: 16}, {want: wantAll, tokens: 4, begins: true},
			{want: wantNLL, tokens: 7}, {want: wantDrawn, tokens: 1, vocab: 60}, {want: wantDrawn, tokens: 1, vocab: 64, sampled: true}} {
			other, err := plan(&m, 2, s, 100, p)
			if err != nil {
				t.Fatal(err)
			}
			if err := other.SameStates(base); err != nil {
				t.Errorf("%+v, %+v: %v", p, s, err)
			}
		}
	}
}

// TestTailOfLastToken: after the last sublayer that mixes tokens, a program that only needs the
// last token's logits computes nothing for the others.
func TestTailOfLastToken(t *testing.T) {
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF, m.Attention.Window = 64, 32, 48, 8
	for _, name := range []string{"mlp", "swa", "mlp", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	for want, rows := range map[want]int{wantLast: 2, wantAll: 2 * 16} {
		p, err := plan(&m, 2, shape{want: want, tokens: 16, begins: true}, 100, layers.Precision{})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, s := range p.Steps {
			expected := rows
			switch {
			case strings.HasPrefix(s.Path, "model.layers.2."), strings.HasPrefix(s.Path, "model.layers.3."):
			case strings.HasPrefix(s.Path, "model.layers.1.mixer"):
				expected = 2 * 16
			default:
				continue
			}
			seen++
			if s.In[0].Rows != expected {
				t.Errorf("%v: %s of %s has %d rows, want %d", want, s.Spec.Name, s.Path, s.In[0].Rows, expected)
			}
		}
		if seen < 8 {
			t.Errorf("%d steps seen", seen)
		}
	}
}
