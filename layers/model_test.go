package layers_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/layers"
)

const rows, tokens = 2, 11 // of the models under test

// small returns a model small enough for a float64 reference to be differentiated numerically.
func small(pattern string, repeat int, tied bool) *layers.Model {
	m := model(pattern, repeat, 23, 16, 20, 4, 2, tied)
	m.Attention.Window = 4
	m.Mamba.DState, m.Mamba.DTRank = 5, 3
	m.GLA.Heads, m.GLA.GateLowRank, m.Retention.Heads = 2, 3, 2
	m.Mega.ZDim, m.Mega.Chunk, m.Mega.DState, m.Mega.DTRank = 6, 8, 5, 3
	return m
}

// trained is a model's training plan, with values for its parameters and inputs.
type trained struct {
	train, eval     *graph.Plan
	w               map[string][]float64
	tokens, targets []float64
}

func compileSmall(t *testing.T, m *layers.Model) *trained {
	t.Helper()
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	plan := func(training bool) *graph.Plan {
		b := layers.NewBuilder(layers.Precision{})
		in, targets := b.Input("tokens", graph.Int32, rows, tokens), b.Input("targets", graph.Int32, rows, tokens)
		if training {
			loss := m.Loss(b, in, targets)
			b.Result("loss", loss)
			b.Result("nll", loss.Output(1))
			if err := b.Gradients(loss); err != nil {
				t.Fatal(err)
			}
		} else {
			b.Result("loss", m.EvalLoss(b, in, targets))
		}
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	c := &trained{train: plan(true), eval: plan(false), w: map[string][]float64{}}
	r := rand.New(rand.NewPCG(5, 6))
	for _, p := range c.train.Params {
		first := make([]float32, p.Shape.Size())
		p.Init(r, first)
		w := make([]float64, len(first))
		for i, x := range first {
			// Avoid points where gradients are small or equal: norms of 1, equal rows of A_log.
			w[i] = float64(float32(1.5*float64(x) + 0.2*r.NormFloat64()))
		}
		c.w[p.Name] = w
	}
	for range rows * tokens {
		c.tokens = append(c.tokens, float64(r.IntN(m.VocabSize)))
		c.targets = append(c.targets, float64(r.IntN(m.VocabSize+2)-2)) // some don't count
	}
	return c
}

func slot(p graph.ParamSlot, r graph.Region) graph.Slot {
	return graph.Slot{Region: r, Offset: p.Offset, Rows: p.Shape.Rows(), Cols: p.Shape.Cols(), Stride: p.Shape.Cols(), Shape: p.Shape}
}

// reference runs a plan in float64.
func (c *trained) reference(t *testing.T, p *graph.Plan) *reference.Memory {
	t.Helper()
	m := reference.NewMemory(p)
	for _, q := range p.Params {
		m.Write(slot(q, graph.Params), c.w[q.Name])
	}
	m.Write(p.Inputs["tokens"], c.tokens)
	m.Write(p.Inputs["targets"], c.targets)
	if err := m.Run(p); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWholeModels checks a training step of each kind of model: the CPU's float32 against float64,
// and float64 against central differences of the loss.
func TestWholeModels(t *testing.T) {
	nope := small("swa mlp attn mlp", 1, false)
	nope.Attention.RopeBase = 0
	places := small("mamba mlp swa mlp", 1, true)
	places.Layers.Pattern[0].Settings = map[string]any{"expand": 1.5, "d_state": 3, "dt_rank": "auto", "d_conv": 2}
	places.Layers.Pattern[1].Settings = map[string]any{"d_ff": 7}
	places.Layers.Pattern[2].Settings = map[string]any{"heads": 3, "kv_heads": 1, "head_dim": 6, "window": 3}
	for name, m := range map[string]*layers.Model{
		"samba":         small("mamba mlp swa mlp", 1, true),
		"samba untied":  small("mamba mlp swa mlp", 1, false),
		"mamba swa mlp": small("mamba swa mlp", 1, true),
		"llama":         small("attn mlp", 2, false),
		"nope":          nope,
		"gla":           small("gla mlp", 1, true),
		"retention":     small("retention mlp", 1, true),
		"mega":          small("mega mlp", 1, true),
		"places":        places,
	} {
		t.Run(name, func(t *testing.T) {
			c := compileSmall(t, m)
			exact := c.reference(t, c.train)
			c.onCPU(t, exact)
			c.differences(t, exact)
			loss, eval := exact.Read(c.train.Results["loss"]).Data[0], c.reference(t, c.eval)
			if got := eval.Read(c.eval.Results["loss"]).Data[0]; !(math.Abs(got-loss) <= 1e-12) {
				t.Errorf("the loss without gradients is %v, with gradients %v", got, loss)
			}
		})
	}
}

// onCPU compares the loss, each token's share of it, and all gradients.
func (c *trained) onCPU(t *testing.T, exact *reference.Memory) {
	t.Helper()
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	mem, err := dev.NewMemory(c.train.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(c.train, mem)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.train.Params {
		w := make([]float32, len(c.w[p.Name]))
		for i, x := range c.w[p.Name] {
			w[i] = float32(x)
		}
		if err := mem.Write(graph.Params, p.Offset, w); err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string][]float64{"tokens": c.tokens, "targets": c.targets} {
		ids := make([]int32, len(x))
		for i, v := range x {
			ids[i] = int32(v)
		}
		if err := prog.WriteInts(name, ids); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // whatever the first run leaves behind must not matter
		if err := prog.Run(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"loss", "nll"} {
		want := exact.Read(c.train.Results[name]).Data
		got := make([]float32, len(want))
		if err := prog.Read(name, got); err != nil {
			t.Fatal(err)
		}
		close32(t, name, got, want, 2e-5)
	}
	for _, p := range c.train.Params {
		got := make([]float32, p.Shape.Size())
		if err := mem.Read(graph.Grads, p.Offset, got); err != nil {
			t.Fatal(err)
		}
		close32(t, "gradient of "+p.Name, got, exact.Read(slot(p, graph.Grads)).Data, 2e-4)
	}
}

// close32 fails unless max|got-want| <= limit max|want|.
func close32(t *testing.T, what string, got []float32, want []float64, limit float64) {
	t.Helper()
	worst, largest := 0.0, 0.0
	for i := range want {
		worst = math.Max(worst, math.Abs(float64(got[i])-want[i]))
		largest = math.Max(largest, math.Abs(want[i]))
	}
	if largest == 0 || !(worst <= limit*largest) {
		t.Errorf("%s: the CPU is off by %.2g of the largest, %g", what, worst/largest, largest)
	}
}

// differences checks some elements of each parameter's gradient.
func (c *trained) differences(t *testing.T, exact *reference.Memory) {
	t.Helper()
	const h = 1e-5
	r := rand.New(rand.NewPCG(7, 8))
	for _, p := range c.train.Params {
		g := exact.Read(slot(p, graph.Grads)).Data
		largest := 0.0
		for _, x := range g {
			largest = math.Max(largest, math.Abs(x))
		}
		w := c.w[p.Name]
		for range 3 {
			i := r.IntN(len(w))
			old := w[i]
			loss := func(x float64) float64 {
				w[i] = x
				return c.reference(t, c.eval).Read(c.eval.Results["loss"]).Data[0]
			}
			want := (loss(old+h) - loss(old-h)) / (2 * h)
			w[i] = old
			if !(math.Abs(g[i]-want) <= 1e-6*math.Max(largest, 1e-2)) {
				t.Errorf("gradient of %s: element %d is %g, differences of the loss give %g", p.Name, i, g[i], want)
			}
		}
	}
}

// perToken returns a function that runs, in float64, what `build` makes of the tokens.
func (c *trained) perToken(t *testing.T, build func(b *graph.Builder, tokens graph.Tensor) graph.Tensor) func() []float64 {
	t.Helper()
	b := layers.NewBuilder(layers.Precision{})
	b.Result("x", build(b, b.Input("tokens", graph.Int32, rows, tokens)))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return func() []float64 {
		mem := reference.NewMemory(p)
		for _, q := range p.Params {
			mem.Write(slot(q, graph.Params), c.w[q.Name])
		}
		mem.Write(p.Inputs["tokens"], c.tokens)
		if err := mem.Run(p); err != nil {
			t.Fatal(err)
		}
		return mem.Read(p.Results["x"]).Data
	}
}

// unchanged reports, for each token, whether its part of x stays the same when token `changed` of
// the first row is replaced.
func (c *trained) unchanged(m *layers.Model, x func() []float64, changed int) []bool {
	before := x()
	c.tokens[changed] = float64((int(c.tokens[changed]) + 1) % m.VocabSize)
	after := x()
	width := len(before) / (rows * tokens)
	same := make([]bool, rows*tokens)
	for i := range same {
		same[i] = slices.Equal(before[i*width:(i+1)*width], after[i*width:(i+1)*width])
	}
	return same
}

// TestCausal: changing a token doesn't change the logits before it, and does change those from it
// on.
func TestCausal(t *testing.T) {
	for _, mixer := range layers.Mixers {
		if mixer == "mlp" {
			continue // sees no other token
		}
		t.Run(mixer, func(t *testing.T) {
			m := small(mixer+" mlp", 2, true)
			c := compileSmall(t, m)
			const changed = 6
			for i, same := range c.unchanged(m, c.perToken(t, m.Logits), changed) {
				if want := i < changed || i >= tokens; same != want {
					t.Errorf("row %d, token %d: same logits %v, want %v", i/tokens, i%tokens, same, want)
				}
			}
		})
	}
}

// TestWindow: with one layer, a token sees itself and the window-1 tokens before it.
func TestWindow(t *testing.T) {
	m := small("swa", 1, true)
	c := compileSmall(t, m)
	for i, same := range c.unchanged(m, c.perToken(t, m.Hidden), 2)[:tokens] {
		if want := i < 2 || i >= 2+m.Attention.Window; same != want {
			t.Errorf("token %d: unchanged %v, want %v", i, same, want)
		}
	}
}

// TestChunks: Mega's attention starts over with each chunk. Its state space sees further, but not
// in this test: the convolution has one tap, and states decay at once.
func TestChunks(t *testing.T) {
	m := small("mega", 1, true)
	c := compileSmall(t, m)
	for i := range c.w["model.layers.0.mixer.move.conv1d.weight"] {
		if i%m.Mega.DConv != m.Mega.DConv-1 {
			c.w["model.layers.0.mixer.move.conv1d.weight"][i] = 0
		}
	}
	for i := range c.w["model.layers.0.mixer.move.A_log"] {
		c.w["model.layers.0.mixer.move.A_log"][i] = 20
	}
	for i, same := range c.unchanged(m, c.perToken(t, m.Hidden), 2)[:tokens] {
		if want := i < 2 || i >= m.Mega.Chunk; same != want {
			t.Errorf("token %d: unchanged %v, want %v", i, same, want)
		}
	}
}

// TestBadStackFailsTheBuilder: a model that was not validated also results in an error.
func TestBadStackFailsTheBuilder(t *testing.T) {
	m := small("mamba mlp", 1, true)
	m.Layers.Pattern[0].Mixer = "lstm"
	b := layers.NewBuilder(layers.Precision{})
	if m.Logits(b, b.Input("tokens", graph.Int32, rows, tokens)).Valid() || b.Err() == nil {
		t.Errorf("error is %v", b.Err())
	}
}
