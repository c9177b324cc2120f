package generate_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/layers"
)

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

// TestAnySplit: however the sequences are split, and whatever the chunk, logits and cross-entropies
// are those of the parallel forward pass. It runs twice, to check that a sequence leaves nothing
// behind for the next one.
func TestAnySplit(t *testing.T) {
	const rows, seq = 2, 24
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			m := model(c.mixers...)
			c.change(m)
			e := parallel(t, m, rows, seq)
			tokens, targets := text(1, rows*seq), text(2, rows*seq)
			want, err := e.Logits(tokens)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := e.NewEvaluator(rows, seq)
			if err != nil {
				t.Fatal(err)
			}
			wantNLL, err := whole.Run(tokens, targets)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(3, 4))
			for _, chunk := range []int{1, 5, 24} {
				g := engine(t, e, generate.Config{Rows: rows, Chunk: chunk})
				for range 2 {
					if err := g.Reset(); err != nil {
						t.Fatal(err)
					}
					for from, round := 0, 0; from < seq; round++ {
						to := min(seq, from+1+rng.IntN(13))
						compare(t, g, tokens, targets, want, wantNLL, from, to, round%3)
						from = to
					}
				}
			}
			// The comparison is only meaningful if the logits depend on what came before.
			other := slices.Clone(tokens)
			other[seq-2] = (other[seq-2] + 1) % vocab
			changed, err := e.Logits(other)
			if err != nil {
				t.Fatal(err)
			}
			last := (seq - 1) * vocab
			if d := relative(changed[last:last+vocab], want[last:last+vocab]); d < 1e-3 {
				t.Errorf("the last scores move by %.1e when the token before changes", d)
			}
		})
	}
}

// compare feeds tokens [from, to) of two rows in one of three ways.
func compare(t *testing.T, g *generate.Engine, tokens, targets []int32, want, wantNLL []float32, from, to, way int) {
	t.Helper()
	const rows = 2
	seq := len(tokens) / rows
	same := func(what string, r, at int, got, want []float32) {
		if d := relative(got, want); !(d <= 1e-5) {
			t.Errorf("chunk %d, tokens %d to %d: %s of text %d from token %d differ by %.1e", g.Chunk, from, to, what, r, at, d)
		}
	}
	in := piece(tokens, rows, from, to)
	var err error
	switch way {
	case 0:
		var got []float32
		got, err = g.Next(in)
		for r := range rows {
			same("last scores", r, to-1, got[r*vocab:(r+1)*vocab], want[(r*seq+to-1)*vocab:][:vocab])
		}
	case 1:
		err = g.Logits(in, func(at, n int, got []float32) error {
			for r := range rows {
				same("scores", r, from+at, got[r*n*vocab:(r+1)*n*vocab], want[(r*seq+from+at)*vocab:][:n*vocab])
			}
			return nil
		})
	case 2:
		err = g.NLL(in, piece(targets, rows, from, to), func(at, n int, got []float32) error {
			for r := range rows {
				same("cross-entropies", r, from+at, got[r*n:(r+1)*n], wantNLL[r*seq+from+at:][:n])
			}
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	for r := range rows {
		if g.Position(r) != to {
			t.Fatalf("text %d is at %d, want %d", r, g.Position(r), to)
		}
	}
}

// TestTextsOfTheirOwn: sequences of different lengths are continued together, each as if it were
// alone, in rows that had other sequences before.
func TestTextsOfTheirOwn(t *testing.T) {
	const seq = 24
	lengths := []int{17, 3, 9, 1}
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			m := model(c.mixers...)
			c.change(m)
			e := parallel(t, m, len(lengths), seq)
			tokens := text(1, len(lengths)*seq)
			want, err := e.Logits(tokens)
			if err != nil {
				t.Fatal(err)
			}
			one := engine(t, e, generate.Config{Chunk: 8})
			all := engine(t, e, generate.Config{Rows: len(lengths), Chunk: 1})
			if _, err := all.Next(text(7, len(lengths))); err != nil {
				t.Fatal(err)
			}
			const parked = 2
			for r, n := range lengths {
				if r == parked {
					all.Park(r)
					continue
				}
				if err := one.Reset(); err != nil {
					t.Fatal(err)
				}
				if _, err := one.Next(tokens[r*seq : r*seq+n]); err != nil {
					t.Fatal(err)
				}
				if err := all.Take(r, one, 0); err != nil {
					t.Fatal(err)
				}
			}
			for step := range 7 {
				var in []int32
				for r, n := range lengths {
					in = append(in, tokens[r*seq+n+step])
				}
				got, err := all.Next(in)
				if err != nil {
					t.Fatal(err)
				}
				for r, n := range lengths {
					if r == parked {
						continue
					}
					if d := relative(got[r*vocab:(r+1)*vocab], want[(r*seq+n+step)*vocab:][:vocab]); !(d <= 1e-5) {
						t.Errorf("text %d, token %d differs by %.1e", r, n+step, d)
					}
				}
			}
			if all.Position(parked) != 0 || all.Position(0) != lengths[0]+7 {
				t.Errorf("positions %d and %d, want 0 and %d", all.Position(parked), all.Position(0), lengths[0]+7)
			}
		})
	}
}

// TestLongText feeds far more tokens than the window holds and than the caches initially have room
// for: rings wrap around many times, and caches grow.
func TestLongText(t *testing.T) {
	const seq = 3000
	for _, mixers := range [][]string{{"mamba", "mlp", "swa", "mlp"}, {"attn", "mlp"}} {
		m := model(mixers...)
		m.Attention.Window = 7
		e := parallel(t, m, 1, seq)
		tokens := text(5, seq)
		want, err := e.Logits(tokens)
		if err != nil {
			t.Fatal(err)
		}
		g := engine(t, e, generate.Config{Chunk: 64})
		before := g.StateBytes()
		for at := 0; at < seq; at += 100 {
			got, err := g.Next(tokens[at : at+100])
			if err != nil {
				t.Fatal(err)
			}
			if d := relative(got, want[(at+99)*vocab:][:vocab]); !(d <= 1e-5) {
				t.Fatalf("%v: position %d differs by %.1e", mixers, at+99, d)
			}
		}
		if grown := g.StateBytes() > before; grown != m.CacheGrows() {
			t.Errorf("%v: %d bytes of state at first, %d after %d tokens", mixers, before, g.StateBytes(), seq)
		}
	}
}

// TestFarPositions: at a million tokens the positions are still exact. Attention only sees
// distances, so a sequence that starts there has the same logits as one that starts at 0.
func TestFarPositions(t *testing.T) {
	m := model("swa", "mlp")
	e := parallel(t, m, 1, 24)
	tokens := text(5, 24)
	want, err := e.Logits(tokens)
	if err != nil {
		t.Fatal(err)
	}
	const far = 1 << 20
	g := engine(t, e, generate.Config{Chunk: 4096})
	if _, err := g.Next(make([]int32, far)); err != nil {
		t.Fatal(err)
	}
	if g.Position(0) != far {
		t.Fatalf("at %d, want %d", g.Position(0), far)
	}
	// The window contains the padding until the sequence has filled it, so compare its end.
	got, err := g.Next(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if d := relative(got, want[23*vocab:]); !(d <= 1e-4) {
		t.Errorf("differs by %.1e", d)
	}
}

// TestNextAllocatesNothing, whatever the model; nor does sampling.
func TestNextAllocatesNothing(t *testing.T) {
	for _, mixers := range [][]string{{"mamba", "mlp", "swa", "mlp"}, {"attn", "mlp"}, {"mega", "mlp"}} {
		g := engine(t, parallel(t, model(mixers...), 1, 8), generate.Config{})
		s := sampler(t, generate.SamplerConfig{Temperature: 1, TopK: 20, TopP: 0.9, Vocab: vocab})
		token := []int32{1}
		next := func() {
			logits, err := g.Next(token)
			if err != nil {
				t.Fatal(err)
			}
			token[0] = s.Next(logits)
		}
		next()
		if n := testing.AllocsPerRun(50, next); n != 0 {
			t.Errorf("%v: %v allocations per token", mixers, n)
		}
	}
}

// TestMemory: only full attention needs memory for a long sequence.
func TestMemory(t *testing.T) {
	for _, c := range combinations {
		m := model(c.mixers...)
		c.change(m)
		states := func(positions int) int {
			p, err := generate.Plan(m, 1, 1, positions, layers.Precision{})
			if err != nil {
				t.Fatal(err)
			}
			return p.Sizes[graph.States]
		}
		if short, long := states(10), states(1_000_000); (short != long) != m.CacheGrows() {
			t.Errorf("%s: a text of 10 tokens takes %d floats of state, one of a million %d", c.name, short, long)
		}
	}
}

func TestRefuses(t *testing.T) {
	e := parallel(t, model("attn", "mlp"), 1, 8)
	for _, c := range []generate.Config{{Rows: -1}, {Chunk: -1}, {Positions: -1}, {Positions: 1 << 32}} {
		if _, err := generate.New(e.Device(), e.Memory(), e.Model(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	g := engine(t, e, generate.Config{Rows: 2, Positions: 10})
	if _, err := g.Next(make([]int32, 3)); err == nil || !strings.Contains(err.Error(), "3 tokens don't make 2 rows") {
		t.Errorf("3 tokens for 2 rows: %v", err)
	}
	if _, err := g.Next(make([]int32, 2*11)); err == nil || !strings.Contains(err.Error(), "longer than the 10 tokens") {
		t.Errorf("11 tokens with room for 10: %v", err)
	}
	if err := g.NLL(make([]int32, 2), make([]int32, 4), nil); err == nil || !strings.Contains(err.Error(), "2 tokens and 4 targets") {
		t.Errorf("2 tokens, 4 targets: %v", err)
	}
}
