package train

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

func device(t testing.TB, threads int) graph.Device {
	t.Helper()
	dev, err := cpu.New(threads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// samba is one block of every mixer, with grouped heads and a window shorter than the rows.
func samba() *layers.Model {
	m := layers.Defaults()
	m.VocabSize, m.DModel = 61, 32
	m.Layers.Pattern = pattern("mamba", "mlp", "swa", "mlp", "attn", "mlp")
	m.Attention.Heads, m.Attention.KVHeads, m.Attention.Window = 4, 2, 7
	m.MLP.DFF = 48
	return &m
}

func pattern(mixers ...string) []layers.Place {
	var p []layers.Place
	for _, name := range mixers {
		p = append(p, layers.Place{Mixer: name})
	}
	return p
}

func engine(t testing.TB, dev graph.Device, m *layers.Model, o optim.AdamW, b, seq int, accumulate bool) *Engine {
	t.Helper()
	e, err := NewEngine(dev, m, o, EngineConfig{MicroBatch: b, SeqLen: seq, Accumulate: accumulate})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Init(1); err != nil {
		t.Fatal(err)
	}
	return e
}

// adamw has a nonzero rate from the first step on, unlike the default with its warm-up.
func adamw() optim.AdamW {
	o := optim.DefaultAdamW()
	none := int64(0)
	o.PeakLR, o.WarmupSteps = 1e-2, &none
	return o
}

// batch returns random rows of tokens with their successors.
func batch(seed uint64, rows, seq, vocab int) (tokens, targets []int32) {
	rng := rand.New(rand.NewPCG(seed, 0))
	tokens, targets = make([]int32, rows*seq), make([]int32, rows*seq)
	for r := range rows {
		next := int32(rng.IntN(vocab))
		for i := range seq {
			tokens[r*seq+i] = next
			next = int32((int(next)*7 + rng.IntN(3)) % vocab)
			targets[r*seq+i] = next
		}
	}
	return tokens, targets
}

// region returns a copy of a region's tensors by name.
func region(t testing.TB, e *Engine, r graph.Region) map[string][]float32 {
	t.Helper()
	m := map[string][]float32{}
	for _, p := range e.params {
		m[p.Name] = make([]float32, p.Shape.Size())
		if err := e.mem.Read(r, p.Offset, m[p.Name]); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// sameBits says where two sets of tensors differ, or "".
func sameBits(a, b map[string][]float32) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d and %d tensors", len(a), len(b))
	}
	for _, name := range sortedNames(a) {
		x, y := a[name], b[name]
		if len(x) != len(y) {
			return fmt.Sprintf("%s has %d and %d elements", name, len(x), len(y))
		}
		for i := range x {
			if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
				return fmt.Sprintf("%s[%d] is %v and %v", name, i, x[i], y[i])
			}
		}
	}
	return ""
}

// furthest returns the largest max|a-b| / max|b| of all tensors, and the name of the tensor; NaN if
// any number is NaN.
func furthest(a, b map[string][]float32) (worst float64, name string) {
	for _, n := range sortedNames(a) {
		d, top := 0.0, 0.0
		for i, x := range a[n] {
			d = math.Max(d, math.Abs(float64(x)-float64(b[n][i])))
			top = math.Max(top, math.Abs(float64(b[n][i])))
		}
		if d != 0 && !(d/top <= worst) {
			worst, name = d/top, n
		}
		if math.IsNaN(worst) {
			break
		}
	}
	return worst, name
}

func sortedNames(m map[string][]float32) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// shards prepares a small folder of text, a part of it for validation.
func shards(t *testing.T) data.Config {
	t.Helper()
	c := data.DefaultConfig()
	c.Text.Path, c.Shards, c.SeqLen, c.ValidationFraction = t.TempDir(), filepath.Join(t.TempDir(), "shards"), 16, 0.2
	writeText(t, c.Text.Path, "bottles")
	if _, err := data.Prepare(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// writeText writes a folder of short texts about things.
func writeText(t *testing.T, dir, things string) {
	t.Helper()
	for i := range 60 {
		text := strings.Repeat(fmt.Sprintf("%d green %s on the wall\n", i, things), 2)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.txt", i)), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// recipe returns a complete run that takes a fraction of a second, in its own folder.
func recipe(t *testing.T, sets ...string) *recipes.Recipe {
	t.Helper()
	c := shards(t)
	dir := t.TempDir()
	r, err := recipes.Parse([]byte(`
name: tiny
model:
  vocab_size: 272
  d_model: 16
  layers: {pattern: [mamba, mlp, swa, mlp]}
  attention: {heads: 2, window: 8}
  mlp: {d_ff: 32}
data: {seq_len: 16, validation_fraction: 0.2}
optim: {lr: 1.0e-2, warmup_steps: 2}
train: {steps: 6, batch_size: 2}
eval: {every: 3, rows: 3}
checkpoint: {every: 2, keep_last: 10}
`), "test", slices.Concat([]string{"data.text.path=" + c.Text.Path, "data.shards=" + c.Shards, "run.out=" + filepath.Join(dir, "run"), "run.threads=1"}, sets)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func quiet() Options {
	return Options{
		Log:         slog.New(slog.DiscardHandler),
		Console:     func(o runlog.ConsoleOptions) runlog.Console { return runlog.NewLines(discard{}, o) },
		CodeVersion: "test",
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func records(t *testing.T, dir string) []runlog.Record {
	t.Helper()
	list, torn, err := runlog.Read(filepath.Join(dir, MetricsFile))
	if err != nil || torn != nil {
		t.Fatal(torn, err)
	}
	return list
}
