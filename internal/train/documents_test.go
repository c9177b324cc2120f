package train

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
)

// TestResetState: if the documents of rows are kept apart, each token's logits are those of a row
// that contains only its document, for every mixer; and the gradients are the sums of those of the
// documents.
func TestResetState(t *testing.T) {
	const rows, width, eos = 2, 40, 3
	for _, mixers := range [][]string{{"mamba", "mlp", "swa", "mlp"}, {"attn"}, {"gla"}, {"retention", "swa"}, {"mega", "mlp"}, {"mlp"}} {
		m := layers.Defaults()
		m.VocabSize, m.DModel = 61, 32
		m.Layers.Pattern, m.Layers.Repeat = pattern(mixers...), 2
		m.Attention.Heads, m.Attention.KVHeads, m.Attention.Window = 4, 2, 7
		m.GLA.Heads, m.Retention.Heads, m.Mega.Chunk, m.Mega.ZDim = 2, 2, 6, 8
		m.MLP.DFF = 48
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(5, 5))
		tokens, targets := make([]int32, rows*width), make([]int32, rows*width)
		for i := range tokens {
			tokens[i], targets[i] = 4+random.Int32N(57), random.Int32N(61)
			if random.IntN(9) == 0 {
				tokens[i] = eos
			}
		}
		dev := device(t, 2)
		made := func(b, seq int, reset bool) *Engine {
			e, err := NewEngine(dev, &m, optim.DefaultAdamW(), EngineConfig{MicroBatch: b, SeqLen: seq, ResetState: reset, EOS: eos})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Init(1); err != nil {
				t.Fatal(err)
			}
			return e
		}
		logits := func(e *Engine, tokens []int32) []float32 {
			g := layers.NewBuilder(layers.Precision{})
			e.config.documents(g, e.MicroBatch, e.SeqLen)
			g.Result(resultLogits, m.Logits(g, g.Input(inputTokens, graph.Int32, e.MicroBatch, e.SeqLen)))
			plan, err := g.Compile()
			if err != nil {
				t.Fatal(err)
			}
			p, err := dev.Load(plan, e.mem)
			if err != nil {
				t.Fatal(err)
			}
			out := make([]float32, len(tokens)*m.VocabSize)
			if err := errors.Join(p.WriteInts(inputTokens, tokens), e.writeStarts(p, e.SeqLen, tokens), p.Run(), p.Read(resultLogits, out)); err != nil {
				t.Fatal(err)
			}
			return out
		}
		gradients := func(e *Engine, tokens, targets []int32) []float32 {
			if _, err := e.Forward(tokens, targets); err != nil {
				t.Fatal(err)
			}
			g := make([]float32, e.floats)
			if err := e.mem.Read(graph.Grads, 0, g); err != nil {
				t.Fatal(err)
			}
			return g
		}
		packed := made(rows, width, true)
		got, grad := logits(packed, tokens), gradients(packed, tokens, targets)

		alone := make([]float32, len(got))
		sum := make([]float64, packed.floats)
		documents := 0
		for from := 0; from < len(tokens); {
			to := from + 1
			for to < len(tokens) && to%width != 0 && tokens[to-1] != eos {
				to++
			}
			e := made(1, to-from, false)
			copy(alone[from*m.VocabSize:], logits(e, tokens[from:to]))
			for i, g := range gradients(e, tokens[from:to], targets[from:to]) {
				sum[i] += float64(g) * float64(to-from) / float64(len(tokens)) // a loss is a mean
			}
			documents++
			from = to
		}
		if documents < 5 {
			t.Fatalf("%d documents are no test", documents)
		}
		for i := range got {
			if d := math.Abs(float64(got[i] - alone[i])); !(d <= 1e-5) {
				t.Errorf("%v: a logit of token %d is %v, alone it is %v", mixers, i/m.VocabSize, got[i], alone[i])
				break
			}
		}
		var difference, norm float64
		for i, g := range grad {
			difference += (float64(g) - sum[i]) * (float64(g) - sum[i])
			norm += sum[i] * sum[i]
		}
		if math.Sqrt(difference/norm) > 1e-5 {
			t.Errorf("%v: the gradient is %g off", mixers, math.Sqrt(difference/norm))
		}
		if same := slices.Equal(got, logits(made(rows, width, false), tokens)); same != (mixers[0] == "mlp") {
			t.Errorf("%v: the same logits as without: %v", mixers, same)
		}
	}
}

// TestResetStateRun: a run keeps documents apart if its recipe says so, and then learns something
// different.
func TestResetStateRun(t *testing.T) {
	whole, err := Pretrain(t.Context(), recipe(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	apart, err := Pretrain(t.Context(), recipe(t, "data.reset_state=true"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	if apart.TrainLoss == whole.TrainLoss || apart.ValLoss == whole.ValLoss {
		t.Errorf("losses are %v and %v with reset_state and without", apart.TrainLoss, apart.ValLoss)
	}
	if !(math.Abs(apart.TrainLoss-whole.TrainLoss) <= 0.5) {
		t.Errorf("losses are %v with reset_state and %v without", apart.TrainLoss, whole.TrainLoss)
	}
}

// TestStarts: a document starts with a row, and after each end of text.
func TestStarts(t *testing.T) {
	const eos = 3
	e, err := NewEngine(device(t, 1), samba(), adamw(), EngineConfig{MicroBatch: 2, SeqLen: 5, ResetState: true, EOS: eos})
	if err != nil {
		t.Fatal(err)
	}
	tokens := []int32{7, 8, eos, 9, 7, 8, eos, eos, 9, eos}
	if err := e.writeStarts(e.train, e.SeqLen, tokens); err != nil {
		t.Fatal(err)
	}
	if want := []int32{0, 0, 0, 3, 3, 0, 0, 2, 3, 3}; !slices.Equal(e.starts, want) {
		t.Errorf("documents start at %v, want %v", e.starts, want)
	}
}
