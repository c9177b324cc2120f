package generate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
)

// scarce is a device with memory for a limited number of elements of a program's states.
type scarce struct {
	graph.Device
	states int
}

func (d scarce) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	if n := p.Sizes[graph.States]; n > d.states {
		return nil, &graph.MemoryError{Text: "no memory for that"}
	}
	return d.Device.Load(p, m)
}

// TestNoMemory: if the caches of full attention can't grow, the sequence that is too long ends, and
// the others get the same tokens as alone, also where they are drawn at random.
func TestNoMemory(t *testing.T) {
	m := model("attn", "mlp")
	m.TieEmbeddings = false
	e := parallel(t, m, 1, 8)
	greedy := func(prompt []int32, n int) generate.Request {
		return generate.Request{Prompt: prompt, Tokens: n, EOS: never, Sampler: sampler(t, generate.SamplerConfig{TopP: 1, Vocab: vocab})}
	}
	for _, temperature := range []float64{0, 1} {
		short := func() generate.Request {
			r := greedy(text(2, 5), 40)
			r.Sampler = sampler(t, generate.SamplerConfig{Temperature: temperature, TopP: 1, Vocab: vocab, Seed: 3})
			return r
		}
		want := continued(t, e, 1, []generate.Request{short()})[0]
		for _, rows := range []int{1, 2} {
			for _, dev := range []graph.Device{e.Device(), asynchronous{e.Device()}} {
				t.Run(fmt.Sprintf("%d, %T, temperature %v", rows, dev, temperature), func(t *testing.T) { noMemory(t, e, dev, rows, greedy, short(), want) })
			}
		}
	}
}

func noMemory(t *testing.T, e *train.Engine, dev graph.Device, rows int, greedy func([]int32, int) generate.Request, short generate.Request, want []int32) {
	const room = 2048
	plan, err := generate.Plan(e.Model(), rows, 1, room, e.Precision())
	if err != nil {
		t.Fatal(err)
	}
	b, err := generate.NewBatch(scarce{dev, plan.Sizes[graph.States]}, e.Memory(), e.Model(), generate.Config{Rows: rows, Chunk: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Add(t.Context(), greedy(text(1, 5000), 1)); !isMemory(err) || b.Active() != 0 {
		t.Errorf("a prompt of 5000 tokens: %v, %d active", err, b.Active())
	}
	var failed error
	var got [2][]int32
	long := greedy(text(1, room-48), 100)
	long.Emit = func(token int32, _ []float32) bool { got[0] = append(got[0], token); return true }
	long.Fail = func(err error) { failed = err }
	long.End = func() { t.Error("the long text ends as if it were whole") }
	short.Emit = func(token int32, _ []float32) bool { got[1] = append(got[1], token); return true }
	if err := b.Add(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	waiting := []generate.Request{short}
	for step := 0; b.Active() > 0 || len(waiting) > 0; step++ {
		if len(waiting) > 0 && b.Free() && (step >= 30 || b.Active() == 0) {
			if err := b.Add(t.Context(), waiting[0]); err != nil {
				t.Fatal(err)
			}
			waiting = nil
		}
		if err := b.Step(); err != nil {
			t.Fatal(err)
		}
	}
	// The first token is drawn before one is read.
	if !isMemory(failed) || len(got[0]) != 49 {
		t.Errorf("the long text ends after %d tokens, want 49: %v", len(got[0]), failed)
	}
	if !slices.Equal(got[1], want) {
		t.Errorf("the other text is %v, alone %v", got[1], want)
	}
	long.Fail, long.End = nil, nil
	if err := b.Run(t.Context(), []generate.Request{long}); !isMemory(err) || !strings.Contains(err.Error(), "room for ") {
		t.Errorf("without Fail: %v", err)
	}
}

// narrow is an asynchronous device that lacks memory for another program while full is set.
type narrow struct {
	asynchronous
	full bool
}

func (d *narrow) LoadBeside(p *graph.Plan, m graph.Memory, other graph.Program) (graph.Program, error) {
	if d.full {
		return nil, &graph.MemoryError{Text: "no memory for that"}
	}
	return d.Device.LoadBeside(p, m, other)
}

// TestNoMemoryAhead: if a device can't draw ahead for lack of memory, the tokens that it has drawn
// are not lost.
func TestNoMemoryAhead(t *testing.T) {
	e := untied(t, 1, 8)
	draw := func(full bool) (got []int32) {
		dev := &narrow{asynchronous: asynchronous{e.Device()}}
		g, err := generate.New(dev, e.Memory(), e.Model(), generate.Config{Chunk: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		settings := func(int) sample.Settings { return sample.Settings{Temperature: 1, TopP: 1, Uniform: 0.4} }
		token := []int32{5}
		for i := range 6 {
			dev.full = full && i == 3
			if i == 3 {
				settings = nil // the most likely token from here on, by another program
			}
			drawn, err := g.Draw(token, vocab, settings, true)
			if err != nil {
				t.Fatalf("draw %d: %v", i, err)
			}
			token = []int32{drawn[0]}
			got = append(got, token...)
		}
		return got
	}
	if got, want := draw(true), draw(false); !slices.Equal(got, want) {
		t.Errorf("drawn %v, with enough memory %v", got, want)
	}
}

// TestNoMemoryToDouble: caches that can't double grow by less, as long as there is memory for that.
func TestNoMemoryToDouble(t *testing.T) {
	m := model("attn", "mlp")
	e := parallel(t, m, 1, 8)
	const room = 3500 // positions: enough for 2100 and the initial 1024, but not for twice 2048
	plan, err := generate.Plan(e.Model(), 1, 1, room, e.Precision())
	if err != nil {
		t.Fatal(err)
	}
	g, err := generate.New(scarce{e.Device(), plan.Sizes[graph.States]}, e.Memory(), e.Model(), generate.Config{Chunk: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for _, n := range []int{1500, 600} {
		if err := g.Skip(n); err != nil {
			t.Errorf("%d positions more: %v", n, err)
		}
	}
	if err := g.Skip(room); !isMemory(err) {
		t.Errorf("beyond %d positions: %v", room, err)
	}
	if got := g.Position(0); got != 2100 {
		t.Errorf("%d positions are taken, want 2100", got)
	}
}

// TestGrownRows: when caches grow, each sequence keeps its own keys and values.
func TestGrownRows(t *testing.T) {
	const rows, before, after = 2, 1000, 60
	e := parallel(t, model("attn", "mlp"), 1, 8)
	tokens := text(6, rows*(before+after))
	last := func(room int) []float32 {
		g := engine(t, e, generate.Config{Rows: rows, Chunk: 250, Room: room})
		if _, err := g.Next(piece(tokens, rows, 0, before)); err != nil {
			t.Fatal(err)
		}
		scores, err := g.Next(piece(tokens, rows, before, before+after))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(scores)
	}
	if got, want := last(0), last(2*(before+after)); !(relative(got, want) <= 1e-6) {
		t.Errorf("logits differ by %.1e", relative(got, want))
	}
}

// TestHeldBytes: what a cache holds depends on its longest sequence.
func TestHeldBytes(t *testing.T) {
	e := parallel(t, model("attn", "mlp"), 1, 8)
	one, two := engine(t, e, generate.Config{Chunk: 4}), engine(t, e, generate.Config{Rows: 2, Chunk: 1})
	empty := two.HeldBytes()
	if _, err := one.Next(text(1, 7)); err != nil {
		t.Fatal(err)
	}
	if err := two.Take(1, one, 0); err != nil {
		t.Fatal(err)
	}
	const position = 2 * 2 * 32 * 4 // bytes: two rows of a key and a value of d_model float32 numbers
	if got, want := two.HeldBytes()-empty, int64(7*position); got != want {
		t.Errorf("7 tokens take %d bytes, want %d", got, want)
	}
}

func isMemory(err error) bool {
	var memory *graph.MemoryError
	return errors.As(err, &memory)
}
