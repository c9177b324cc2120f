package generate_test

import (
	"math"
	"math/rand/v2"
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

// parallel returns a model with random weights that runs over rows of seq tokens at once.
func parallel(t testing.TB, m *layers.Model, rows, seq int) *train.Engine {
	t.Helper()
	e, err := train.NewEngine(device(t), m, optim.DefaultAdamW(), train.EngineConfig{MicroBatch: rows, SeqLen: seq})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Init(3); err != nil {
		t.Fatal(err)
	}
	// With initial weights tokens hardly see each other. With these they do: sharp attention, and
	// time steps long enough for the state to matter.
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

func engine(t testing.TB, e *train.Engine, c generate.Config) *generate.Engine {
	t.Helper()
	g, err := generate.New(e.Device(), e.Memory(), e.Model(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// piece returns tokens [from, to) of rows of seq tokens.
func piece(tokens []int32, rows, from, to int) []int32 {
	var out []int32
	seq := len(tokens) / rows
	for r := range rows {
		out = append(out, tokens[r*seq+from:r*seq+to]...)
	}
	return out
}
