package generate_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/graph/ops/cast_weights"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
)

// gpu skips a test by name on a machine without one.
func gpu(t *testing.T) *cuda.Device {
	t.Helper()
	dev, err := cuda.New(0)
	if err != nil {
		t.Skipf("no NVIDIA GPU: %v", err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// wide returns a combination's model with widths for which GPUs have special kernels: heads for
// tensor cores, and fused products of few rows.
func wide(mixers []string, change func(m *layers.Model)) *layers.Model {
	m := model(mixers...)
	m.DModel, m.MLP.DFF, m.Attention.HeadDim, m.Attention.KVHeads = 128, 192, 64, 2
	m.Attention.Window, m.Mega.ZDim, m.Mega.Chunk = 50, 16, 70
	change(m)
	return m
}

// onGPU is a model with an engine's weights on a GPU.
type onGPU struct {
	dev       graph.Device
	mem       graph.Memory
	model     *layers.Model
	precision layers.Precision
}

func toGPU(t *testing.T, dev graph.Device, e *train.Engine, mixed bool) *onGPU {
	t.Helper()
	g := &onGPU{dev: dev, model: e.Model(), precision: layers.Precision{Mixed: mixed}}
	plan, err := generate.Plan(g.model, 1, 1, 1, g.precision)
	if err != nil {
		t.Fatal(err)
	}
	if g.mem, err = dev.NewMemory(plan.Sizes); err != nil {
		t.Fatal(err)
	}
	weights := make([]float32, plan.Sizes[graph.Params])
	if err := e.Memory().Read(graph.Params, 0, weights); err != nil {
		t.Fatal(err)
	}
	if err := g.mem.Write(graph.Params, 0, weights); err != nil {
		t.Fatal(err)
	}
	if mixed {
		b := layers.NewBuilder(layers.Precision{})
		cast_weights.Apply(b, b.Whole(graph.Shadow, len(weights)/2), b.Whole(graph.Params, len(weights)))
		g.run(t, b, nil, nil)
	}
	return g
}

// run builds and runs a graph once, on tokens if there are any, and reads its logits.
func (g *onGPU) run(t *testing.T, b *graph.Builder, tokens []int32, scores []float32) {
	t.Helper()
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.dev.Load(plan, g.mem)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if tokens != nil {
		if err := p.WriteInts("tokens", tokens); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	if scores != nil {
		if err := p.Read("scores", scores); err != nil {
			t.Fatal(err)
		}
	}
}

// whole returns the logits [rows T V] of one pass over whole sequences.
func (g *onGPU) whole(t *testing.T, tokens []int32, rows int) []float32 {
	t.Helper()
	b := layers.NewBuilder(g.precision)
	b.Result("scores", g.model.Logits(b, b.Input("tokens", graph.Int32, rows, len(tokens)/rows)))
	scores := make([]float32, len(tokens)*vocab)
	g.run(t, b, tokens, scores)
	return scores
}

// cut is a way to feed sequences: pieces of random lengths of up to `most` tokens, in calls of at
// most `chunk`.
type cut struct{ chunk, most int }

// carried returns the same logits for sequences that come in pieces.
func (g *onGPU) carried(t *testing.T, tokens []int32, rows int, c cut) []float32 {
	t.Helper()
	e, err := generate.New(g.dev, g.mem, g.model, generate.Config{Rows: rows, Chunk: c.chunk, Precision: g.precision})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	seq := len(tokens) / rows
	scores := make([]float32, len(tokens)*vocab)
	rng := rand.New(rand.NewPCG(3, uint64(c.most)))
	for from := 0; from < seq; {
		to := min(seq, from+1+rng.IntN(c.most))
		in := piece(tokens, rows, from, to)
		keep := func(at, n int, got []float32) error {
			for r := range rows {
				copy(scores[(r*seq+from+at)*vocab:], got[r*n*vocab:(r+1)*n*vocab])
			}
			return nil
		}
		if to > from+1 {
			err = e.Logits(in, keep)
		} else {
			var got []float32
			if got, err = e.Next(in); err == nil {
				err = keep(0, 1, got)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		from = to
	}
	return scores
}

// rms is |a-b| / |b|.
func rms(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		d += math.Pow(float64(a[i])-float64(b[i]), 2)
		n += math.Pow(float64(b[i]), 2)
	}
	return math.Sqrt(d / n)
}

// roundings are the precisions of a GPU, and how far its logits may be from a CPU's in float32.
var roundings = []struct {
	name        string
	mixed, tf32 bool
	limit       float64
}{{"float32", false, false, 1e-5}, {"tf32", false, true, 1e-3}, {"bfloat16", true, false, 1e-2}}

// TestAnySplitOnGPU: however sequences are split on a GPU, even token by token, logits are those of
// its own pass over whole sequences and those of the CPU. In float32 that holds to 1e-5; where
// operands are rounded, pieces must be as close to the CPU's logits as the pass over whole
// sequences is.
func TestAnySplitOnGPU(t *testing.T) {
	const rows, seq = 2, 200 // more than scans process in one segment
	for _, p := range roundings {
		dev := gpu(t)
		if p.tf32 {
			dev.AllowTF32()
		}
		for _, c := range combinations {
			t.Run(p.name+"/"+c.name, func(t *testing.T) {
				e := parallel(t, wide(c.mixers, c.change), rows, seq)
				tokens := text(1, rows*seq)
				exact, err := e.Logits(tokens)
				if err != nil {
					t.Fatal(err)
				}
				g := toGPU(t, dev, e, p.mixed)
				whole := g.whole(t, tokens, rows)
				own := rms(whole, exact)
				t.Logf("whole texts are off by %.1e (%.1e)", relative(whole, exact), own)
				if !(own <= p.limit) {
					t.Errorf("whole texts: scores differ from the CPU's by %.1e", own)
				}
				for _, cut := range []cut{{1, 1}, {5, 13}, {64, 64}, {seq, 150}} {
					got := g.carried(t, tokens, rows, cut)
					t.Logf("%+v: off by %.1e (%.1e), from whole texts by %.1e (%.1e)", cut, relative(got, exact), rms(got, exact), relative(got, whole), rms(got, whole))
					if p.limit == 1e-5 {
						if d := max(relative(got, exact), relative(got, whole)); !(d <= p.limit) {
							t.Errorf("%+v: scores differ by %.1e", cut, d)
						}
					} else if d := rms(got, exact); !(d <= 1.5*own) {
						t.Errorf("%+v: scores differ from the CPU's by %.1e, those of whole texts by %.1e", cut, d, own)
					}
				}
			})
		}
	}
}

// TestFewRowsOnGPU: in bfloat16, plans with few rows have fused ops and special kernels. Tokens
// decoded with them are as close to the CPU's as those of plans with more rows.
func TestFewRowsOnGPU(t *testing.T) {
	const rows, seq = graph.FewRows + 1, 20
	dev := gpu(t)
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			e := parallel(t, wide(c.mixers, c.change), rows, seq)
			tokens := text(1, rows*seq)
			exact, err := e.Logits(tokens)
			if err != nil {
				t.Fatal(err)
			}
			g := toGPU(t, dev, e, true)
			one := cut{chunk: 1, most: 1}
			many := g.carried(t, tokens, rows, one)
			for _, few := range []int{1, 3, graph.FewRows} {
				if a, b := steps(t, g, few), steps(t, g, rows); slices.Contains(c.mixers, "mlp") && a >= b {
					t.Errorf("a plan of %d rows has %d steps, of %d rows %d: nothing is joined", few, a, rows, b)
				}
				n := few * seq
				got := g.carried(t, tokens[:n], few, one)
				d, limit := rms(got, exact[:n*vocab]), rms(many[:n*vocab], exact[:n*vocab])
				t.Logf("%d rows: off by %.1e, in %d rows by %.1e, from each other by %.1e", few, d, rows, limit, rms(got, many[:n*vocab]))
				if !(d <= 1.5*limit) {
					t.Errorf("%d rows: scores differ from the CPU's by %.1e, in %d rows by %.1e", few, d, rows, limit)
				}
			}
		})
	}
}

// steps returns the number of calls for one token of each row.
func steps(t *testing.T, g *onGPU, rows int) int {
	t.Helper()
	p, err := generate.Plan(g.model, rows, 1, 1, g.precision)
	if err != nil {
		t.Fatal(err)
	}
	return len(p.Steps)
}

// TestDrawnOnGPU: the tokens that a GPU draws, ahead of the host, are those that the host draws from
// the same logits, for sequences that start and end at different times, some of them sampled.
func TestDrawnOnGPU(t *testing.T) {
	for _, p := range roundings {
		dev := gpu(t)
		if p.tf32 {
			continue // logits have the same type as in float32
		}
		for _, c := range combinations {
			t.Run(p.name+"/"+c.name, func(t *testing.T) {
				m := wide(c.mixers, c.change)
				m.TieEmbeddings = false
				g := toGPU(t, dev, parallel(t, m, 1, 8), p.mixed)
				for _, rows := range []int{1, 3, graph.FewRows, graph.FewRows + 1} {
					for _, sampled := range []bool{false, true} {
						texts := func(scores bool) [][]int32 {
							return continuedBy(t, g.dev, g.mem, g.model, generate.Config{Rows: rows, Chunk: 16, Precision: g.precision}, several(t, 2*rows+1, sampled, scores))
						}
						host, device := texts(true), texts(false)
						if fmt.Sprint(host) != fmt.Sprint(device) {
							t.Errorf("%d rows, sampled %v:\n%v, of the host\n%v", rows, sampled, device, host)
						}
					}
				}
			})
		}
	}
}
