//go:build linux

package cuda

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/attention"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
)

// TestAttentionOfLongRows: at sizes for which the float64 reference is too slow, the gradients of
// the tensor-core kernels agree with those of the float32 kernels and are the same in every run,
// with many more thread blocks than the GPU can run at once.
func TestAttentionOfLongRows(t *testing.T) {
	d := open(t)
	rotary := func(c attention.Config) *graph.Spec {
		return attention.RotarySpec(c, attention.Rotation{Turn: rope.Spec(c.HeadDim, 500), Back: rope.BackwardSpec(c.HeadDim, 500), Base: 500})
	}
	for _, c := range []struct {
		form   func(c attention.Config) *graph.Spec
		config attention.Config
		dims   graph.Dims
		most   int // tokens of a document
	}{
		{attention.Spec, attention.Config{Heads: 12, KVHeads: 12, HeadDim: 128, Window: 2048}, graph.Dims{"B": 2, "T": 4096}, 0},
		{attention.Spec, attention.Config{Heads: 12, KVHeads: 4, HeadDim: 128, Window: 1000}, graph.Dims{"B": 3, "T": 3001}, 0},
		{attention.Spec, attention.Config{Heads: 6, KVHeads: 1, HeadDim: 128}, graph.Dims{"B": 2, "T": 2500}, 0},
		{attention.Spec, attention.Config{Heads: 4, KVHeads: 4, HeadDim: 128, Window: 33}, graph.Dims{"B": 1, "T": 16384}, 0},
		{attention.Spec, attention.Config{Heads: 4, KVHeads: 2, HeadDim: 64, Window: 500}, graph.Dims{"B": 1, "T": 4000}, 0},
		{attention.Spec, attention.Config{Heads: 8, KVHeads: 1, HeadDim: 64, Window: 2048}, graph.Dims{"B": 2, "T": 4096}, 0},
		{attention.Spec, attention.Config{Heads: 2, KVHeads: 2, HeadDim: 64}, graph.Dims{"B": 2, "T": 3001}, 0},
		{attention.Spec, attention.Config{Heads: 11, KVHeads: 1, HeadDim: 256, Window: 2048}, graph.Dims{"B": 1, "T": 4096}, 0},
		{attention.Spec, attention.Config{Heads: 6, KVHeads: 3, HeadDim: 256}, graph.Dims{"B": 3, "T": 1333}, 0},
		{attention.SpecByDocument, attention.Config{Heads: 3, KVHeads: 1, HeadDim: 256, Window: 500}, graph.Dims{"B": 2, "T": 2000}, 900},
		{attention.SpecByDocument, attention.Config{Heads: 12, KVHeads: 12, HeadDim: 128, Window: 2048}, graph.Dims{"B": 2, "T": 4096}, 900},
		{attention.SpecByDocument, attention.Config{Heads: 12, KVHeads: 4, HeadDim: 128}, graph.Dims{"B": 2, "T": 3001}, 3000},
		{attention.SpecByDocument, attention.Config{Heads: 4, KVHeads: 2, HeadDim: 64, Window: 500}, graph.Dims{"B": 2, "T": 4000}, 900},
		{rotary, attention.Config{Heads: 12, KVHeads: 4, HeadDim: 128, Window: 2048}, graph.Dims{"B": 2, "T": 4001}, 0},
		{rotary, attention.Config{Heads: 4, KVHeads: 2, HeadDim: 64, Window: 500}, graph.Dims{"B": 2, "T": 1700}, 0},
		{rotary, attention.Config{Heads: 2, KVHeads: 1, HeadDim: 256, Window: 500}, graph.Dims{"B": 1, "T": 700}, 0},
		{rotary, attention.Config{Heads: 1, KVHeads: 1, HeadDim: 128, Window: 70}, graph.Dims{"B": 1, "T": 100000}, 0},
	} {
		spec := c.form(c.config)
		t.Run(fmt.Sprintf("%s %+v %v", spec.Name, c.config, c.dims), func(t *testing.T) {
			forward, backward := passes(t, graph.Case{Name: "long", Spec: spec, Dims: c.dims})
			random := rand.New(rand.NewPCG(1, 2))
			named := map[string][]float64{}
			for _, o := range append(forward.In[:len(forward.In):len(forward.In)], backward.In[len(backward.In)-1], backward.In[len(backward.In)-2]) {
				x := graph.NewArray(o.Shape)
				if o.Name == "start" {
					graph.DocumentStarts(c.most)(random, x)
				} else {
					for i := range x.Data {
						x.Data[i] = bf16(float32(random.NormFloat64()))
					}
				}
				named[o.Name] = x.Data
			}
			inputs := func(list []graph.Operand) (in [][]float64) {
				for _, o := range list {
					in = append(in, named[o.Name])
				}
				return in
			}
			exact := runCall(t, d, forward, inputs(forward.In), precisions[0])
			near(t, "o", runCall(t, d, forward, inputs(forward.In), precisions[1])[0], widened(exact[0]), precisions[1])
			for i, o := range forward.Out {
				named[o.Name] = widened(exact[i])
				if o.Kind != graph.Precise {
					named[o.Name] = rounded(named[o.Name])
				}
			}
			if turned, ok := named["qr"]; ok { // the backward op's q and k
				named["q"], named["k"] = turned, named["kr"]
			}
			in := inputs(backward.In)
			want, got, again := runCall(t, d, backward, in, precisions[0]), runCall(t, d, backward, in, precisions[1]), runCall(t, d, backward, in, precisions[1])
			for i, o := range backward.Out {
				near(t, o.Name, got[i], widened(want[i]), precisions[1])
				if j := differ(got[i], again[i]); j >= 0 {
					t.Errorf("%s: element %d is %v in one run and %v in the next", o.Name, j, got[i][j], again[i][j])
				}
			}
		})
	}
}

// passes are a case's forward op and its single backward op.
func passes(t *testing.T, c graph.Case) (forward, backward *graph.Resolved) {
	t.Helper()
	calls := benchCalls(t, c)
	if len(calls) != 2 {
		t.Fatalf("%d calls, want a forward and a backward op", len(calls))
	}
	return calls[0], calls[1]
}

// runCall returns an op's outputs.
func runCall(t *testing.T, d *Device, r *graph.Resolved, in [][]float64, p precision) [][]float32 {
	t.Helper()
	l, err := loadCall(d, r, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	for i, x := range in {
		l.put(l.in[i], x)
	}
	l.poisonArena(t)
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	var out [][]float32
	for i, o := range r.Out {
		x := make([]float32, o.Shape.Size())
		if err := l.ReadSlot(l.out[i], x); err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// rounded is x rounded to bfloat16.
func rounded(x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = bf16(float32(v))
	}
	return y
}

func widened(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
