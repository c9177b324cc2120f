package generate_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
)

const vocab = 61

func model(mixers ...string) *layers.Model {
	m := layers.Defaults()
	m.VocabSize, m.DModel = vocab, 32
	for _, name := range mixers {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Attention.Heads, m.Attention.Window = 4, 6
	m.MLP.DFF = 48
	m.GLA.Heads, m.Retention.Heads = 2, 2
	m.Mega.ZDim, m.Mega.Chunk = 8, 10
	return &m
}

func device(t testing.TB) graph.Device {
	t.Helper()
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// parallel is a model with drawn weights that runs over rows of seq tokens at once.
func parallel(t testing.TB, m *layers.Model, rows, seq int) *train.Engine {
	t.Helper()
	e, err := train.NewEngine(device(t), m, optim.DefaultAdamW(), train.EngineConfig{MicroBatch: rows, SeqLen: seq})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Init(3); err != nil {
		t.Fatal(err)
	}
	// Initial weights barely let tokens see each other. These do: sharp attention, and
	// time steps long enough that the state matters.
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range e.Params() {
		w := make([]float32, p.Shape.Size())
		if err := e.Memory().Read(graph.Params, p.Offset, w); err != nil {
			t.Fatal(err)
		}
		for i := range w {
			switch {
			case strings.HasSuffix(p.Name, "embeddings.weight"):
				w[i] *= 30
			case strings.HasSuffix(p.Name, "dt_proj.bias"):
				w[i] += 3
			case strings.HasSuffix(p.Name, "q_proj.weight"), strings.HasSuffix(p.Name, "k_proj.weight"):
				w[i] *= 4
			default:
				w[i] *= 1 + 0.2*float32(rng.NormFloat64())
			}
		}
		if err := e.Memory().Write(graph.Params, p.Offset, w); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func text(seed uint64, n int) []int32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(rng.IntN(vocab))
	}
	return tokens
}

// relative is max|a-b| / max|b|.
func relative(a, b []float32) float64 {
	worst, top := 0.0, 0.0
	for i := range a {
		worst = math.Max(worst, math.Abs(float64(a[i])-float64(b[i])))
		top = math.Max(top, math.Abs(float64(b[i])))
	}
	return worst / top
}

var combinations = []struct {
	name   string
	mixers []string
	change func(m *layers.Model)
}{
	{"samba", []string{"mamba", "mlp", "swa", "mlp"}, func(m *layers.Model) { m.Layers.Repeat = 2 }},
	{"samba, window of one", []string{"mamba", "mlp", "swa", "mlp"}, func(m *layers.Model) { m.Attention.Window = 1 }},
	{"samba, window of the text", []string{"mamba", "mlp", "swa", "mlp"}, func(m *layers.Model) { m.Attention.Window = 24 }},
	{"samba, window beyond the text", []string{"mamba", "mlp", "swa", "mlp"}, func(m *layers.Model) { m.Attention.Window = 100 }},
	{"samba without positions", []string{"mamba", "mlp", "swa", "mlp"}, func(m *layers.Model) { m.Attention.RopeBase = 0 }},
	{"mamba", []string{"mamba"}, func(m *layers.Model) { m.Layers.Repeat = 3 }},
	{"mamba, short convolution", []string{"mamba"}, func(m *layers.Model) { m.Mamba.DConv, m.Mamba.DState = 2, 8 }},
	{"mamba_mlp", []string{"mamba", "mlp"}, func(m *layers.Model) { m.Layers.Repeat = 2 }},
	{"llama", []string{"attn", "mlp"}, func(m *layers.Model) { m.TieEmbeddings, m.Layers.Repeat = false, 2 }},
	{"llama, one key head", []string{"attn", "mlp"}, func(m *layers.Model) { m.Attention.KVHeads = 1 }},
	{"mistral", []string{"swa", "mlp"}, func(m *layers.Model) { m.Attention.KVHeads, m.Layers.Repeat = 2, 2 }},
	{"mamba_swa_mlp", []string{"mamba", "swa", "mlp"}, func(m *layers.Model) { m.Layers.Repeat = 2 }},
	{"mlp2_swa_mlp", []string{"mlp", "mlp", "swa", "mlp"}, func(m *layers.Model) {}},
	{"sliding gla", []string{"gla", "mlp", "swa", "mlp"}, func(m *layers.Model) {}},
	{"gla, narrow heads", []string{"gla"}, func(m *layers.Model) { m.GLA.Heads, m.GLA.ExpandV, m.Layers.Repeat = 16, 0.5, 2 }},
	{"sliding retnet", []string{"retention", "mlp", "swa", "mlp"}, func(m *layers.Model) {}},
	{"retention without positions", []string{"retention"}, func(m *layers.Model) { m.Retention.RopeBase, m.Layers.Repeat = 0, 2 }},
	{"mega", []string{"mega", "mlp"}, func(m *layers.Model) { m.Layers.Repeat = 2 }},
	{"mega, chunk of one", []string{"mega", "mlp"}, func(m *layers.Model) { m.Mega.Chunk = 1 }},
	{"mega, chunk beyond the text", []string{"mega", "mlp"}, func(m *layers.Model) { m.Mega.Chunk = 100 }},
	{"full attention and windows", []string{"attn", "mamba", "swa"}, func(m *layers.Model) {}},
}

// TestTokenByToken: the scores with carried state are those of the parallel forward
// pass at every position.
func TestTokenByToken(t *testing.T) {
	const seq = 24
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			m := model(c.mixers...)
			c.change(m)
			e := parallel(t, m, 1, seq)
			tokens := text(1, seq)
			want, err := e.Logits(tokens)
			if err != nil {
				t.Fatal(err)
			}
			g, err := generate.New(e.Device(), e.Memory(), m, generate.Config{Positions: seq})
			if err != nil {
				t.Fatal(err)
			}
			var got []float32
			for _, token := range tokens {
				logits, err := g.Feed(token)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, logits...)
			}
			for i := range seq {
				if d := relative(got[i*vocab:(i+1)*vocab], want[i*vocab:(i+1)*vocab]); !(d <= 1e-5) {
					t.Errorf("position %d differs by %.1e", i, d)
				}
			}
			// The comparison can fail only where the scores depend on what came before.
			other := slices.Clone(tokens)
			other[seq-2] = (other[seq-2] + 1) % vocab
			changed, err := e.Logits(other)
			if err != nil {
				t.Fatal(err)
			}
			last := (seq - 1) * vocab
			if d := relative(changed[last:], want[last:]); d < 1e-3 {
				t.Errorf("the last scores move by %.1e when the token before changes", d)
			}
		})
	}
}

// TestPlanInParts feeds several texts, some tokens a call.
func TestPlanInParts(t *testing.T) {
	const rows, seq, part = 2, 24, 4
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			m := model(c.mixers...)
			c.change(m)
			e := parallel(t, m, rows, seq)
			tokens := text(1, rows*seq)
			want, err := e.Logits(tokens)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := generate.Plan(m, rows, part, seq, false)
			if err != nil {
				t.Fatal(err)
			}
			p, err := e.Device().Load(plan, e.Memory())
			if err != nil {
				t.Fatal(err)
			}
			// Twice, so that a text leaves nothing behind for the next.
			for round := range 2 {
				p.ResetStates()
				for at := 0; at < seq; at += part {
					in := make([]int32, 0, rows*part)
					for r := range rows {
						in = append(in, tokens[r*seq+at:r*seq+at+part]...)
					}
					if err := p.WriteInts("tokens", in); err != nil {
						t.Fatal(err)
					}
					if _, ok := plan.Inputs[graph.PositionInput]; ok {
						if err := p.WriteInts(graph.PositionInput, []int32{int32(at)}); err != nil {
							t.Fatal(err)
						}
					}
					if err := p.Run(); err != nil {
						t.Fatal(err)
					}
					got := make([]float32, rows*part*vocab)
					if err := p.Read("logits", got); err != nil {
						t.Fatal(err)
					}
					for r := range rows {
						a, b := got[r*part*vocab:(r+1)*part*vocab], want[(r*seq+at)*vocab:(r*seq+at+part)*vocab]
						if d := relative(a, b); !(d <= 1e-5) {
							t.Errorf("round %d, text %d, tokens from %d differ by %.1e", round, r, at, d)
						}
					}
				}
			}
		})
	}
}

// TestLongText feeds far more tokens than the window: the ring of keys and values
// wraps many times.
func TestLongText(t *testing.T) {
	const seq = 200
	m := model("mamba", "mlp", "swa", "mlp")
	m.Attention.Window = 7
	e := parallel(t, m, 1, seq)
	tokens := text(5, seq)
	want, err := e.Logits(tokens)
	if err != nil {
		t.Fatal(err)
	}
	g, err := generate.New(e.Device(), e.Memory(), m, generate.Config{Positions: seq})
	if err != nil {
		t.Fatal(err)
	}
	for i, token := range tokens {
		got, err := g.Feed(token)
		if err != nil {
			t.Fatal(err)
		}
		if d := relative(got, want[i*vocab:(i+1)*vocab]); !(d <= 1e-5) {
			t.Fatalf("position %d differs by %.1e", i, d)
		}
	}
}

// TestFeedAllocatesNothing, whatever the model, and sampling neither.
func TestFeedAllocatesNothing(t *testing.T) {
	for _, mixers := range [][]string{{"mamba", "mlp", "swa", "mlp"}, {"attn", "mlp"}, {"mega", "mlp"}} {
		m := model(mixers...)
		e := parallel(t, m, 1, 8)
		g, err := generate.New(e.Device(), e.Memory(), m, generate.Config{Positions: 100})
		if err != nil {
			t.Fatal(err)
		}
		s, err := generate.NewSampler(generate.SamplerConfig{Temperature: 1, TopK: 20, TopP: 0.9, Vocab: vocab})
		if err != nil {
			t.Fatal(err)
		}
		token := int32(1)
		next := func() {
			logits, err := g.Feed(token)
			if err != nil {
				t.Fatal(err)
			}
			token = s.Next(logits)
		}
		next()
		if n := testing.AllocsPerRun(50, next); n != 0 {
			t.Errorf("%v: %v allocations a token", mixers, n)
		}
	}
}

// TestMemory: only full attention takes memory for a long text.
func TestMemory(t *testing.T) {
	states := func(positions int, mixers ...string) int {
		p, err := generate.Plan(model(mixers...), 1, 1, positions, false)
		if err != nil {
			t.Fatal(err)
		}
		return p.Sizes[graph.States]
	}
	if short, long := states(10, "mamba", "mlp", "swa", "mlp"), states(1_000_000, "mamba", "mlp", "swa", "mlp"); short != long {
		t.Errorf("a text of 10 tokens takes %d floats of state, one of a million %d", short, long)
	}
	if short, long := states(10, "attn"), states(1000, "attn"); long < 50*short {
		t.Errorf("full attention over 10 tokens takes %d floats, over 1000 %d", short, long)
	}
}

func sampler(t testing.TB, c generate.SamplerConfig) *generate.Sampler {
	t.Helper()
	s, err := generate.NewSampler(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestContinue checks what is fed and what is emitted.
func TestContinue(t *testing.T) {
	m := model("mamba", "mlp", "swa", "mlp")
	m.TieEmbeddings = false // a tied head would repeat the last token for ever
	e := parallel(t, m, 1, 8)
	prompt := text(9, 5)
	fresh := func(positions int) *generate.Generator {
		g, err := generate.New(e.Device(), e.Memory(), m, generate.Config{Positions: positions})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	greedy := generate.SamplerConfig{TopP: 1, Vocab: vocab}
	continued := func(n int, eos int32, stopAt int) []int32 {
		var out []int32
		err := fresh(40).Continue(prompt, n, eos, sampler(t, greedy), func(token int32) bool {
			out = append(out, token)
			return len(out) != stopAt
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const never = int32(vocab)
	want := continued(12, never, 0)
	if len(want) != 12 || slices.Max(want) == slices.Min(want) {
		t.Fatalf("the text %v can't show a mistake, want 12 tokens that differ", want)
	}
	// Each is the likeliest successor of all that came before it.
	all := slices.Concat(prompt, want)
	whole := parallel(t, m, 1, len(all))
	logits, err := whole.Logits(all)
	if err != nil {
		t.Fatal(err)
	}
	for i, token := range want {
		row := logits[(len(prompt)-1+i)*vocab:][:vocab]
		if best := int32(slices.Index(row, slices.Max(row))); best != token {
			t.Errorf("token %d is %d, the likeliest is %d", i, token, best)
		}
	}
	if got := continued(3, never, 0); !slices.Equal(got, want[:3]) {
		t.Errorf("3 tokens: %v, want %v", got, want[:3])
	}
	if got := continued(12, never, 4); !slices.Equal(got, want[:4]) {
		t.Errorf("ended by the receiver after 4: %v, want %v", got, want[:4])
	}
	if got := continued(12, want[0], 0); len(got) != 0 {
		t.Errorf("the end of text comes first, but got %v", got)
	}
	if got := continued(0, never, 0); len(got) != 0 {
		t.Errorf("no token was asked for, but got %v", got)
	}
	// The text just fits: the last token needs no room, since nothing follows it.
	keep := func(int32) bool { return true }
	if err := fresh(16).Continue(prompt, 12, never, sampler(t, greedy), keep); err != nil {
		t.Errorf("a text of 17 tokens with room for 16: %v", err)
	}
	if err := fresh(15).Continue(prompt, 12, never, sampler(t, greedy), keep); err == nil || !strings.Contains(err.Error(), "15 tokens") {
		t.Errorf("too little room: %v", err)
	}
	if err := fresh(15).Continue(nil, 12, never, sampler(t, greedy), keep); err == nil || !strings.Contains(err.Error(), "prompt is empty") {
		t.Errorf("no prompt: %v", err)
	}
}

// TestSameSeedSameText on generators of their own; another seed gives another text.
func TestSameSeedSameText(t *testing.T) {
	m := model("mamba", "mlp", "swa", "mlp")
	m.TieEmbeddings = false // a tied head would repeat the last token for ever
	e := parallel(t, m, 1, 8)
	sampled := func(seed uint64) string {
		g, err := generate.New(e.Device(), e.Memory(), m, generate.Config{Positions: 60})
		if err != nil {
			t.Fatal(err)
		}
		var out []int32
		s := sampler(t, generate.SamplerConfig{Temperature: 1, TopP: 0.95, Vocab: vocab, Seed: seed})
		if err := g.Continue([]int32{1}, 50, vocab, s, func(token int32) bool { out = append(out, token); return true }); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(out)
	}
	if a, b := sampled(1), sampled(1); a != b {
		t.Errorf("one seed, two texts:\n%s\n%s", a, b)
	}
	if a, b := sampled(1), sampled(2); a == b {
		t.Errorf("two seeds, one text:\n%s", a)
	}
}
