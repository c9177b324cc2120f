package attention

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
)

// BenchmarkAttention times the forward kernel at the shapes of real models, and the backward kernel
// where there is one.
func BenchmarkAttention(b *testing.B) {
	for _, c := range Cases() {
		if c.Bench {
			b.Run(c.Name, func(b *testing.B) { benchmark(b, c.Spec, c.Dims) })
		}
	}
	for _, c := range []struct {
		name string
		Config
		tokens int
	}{
		{"421m", Config{12, 12, 128, 2048}, 4096},
		{"heads of 64", Config{4, 4, 64, 256}, 1024},
	} {
		b.Run(c.name+" backward", func(b *testing.B) { benchmark(b, backwardSpec(c.Config), graph.Dims{"B": 1, "T": c.tokens}) })
	}
}

func benchmark(b *testing.B, s *graph.Spec, dims graph.Dims) {
	r, err := s.ResolveDims(dims)
	if err != nil {
		b.Fatal(err)
	}
	g := graph.NewBuilder(add.Spec)
	in := make([]graph.Tensor, len(r.In))
	for i, o := range r.In {
		in[i] = g.Input(o.Name, o.DType, o.Shape...)
	}
	out := g.Apply(s, in...)
	for i, o := range r.Out {
		g.Result(o.Name, out.Output(i))
	}
	plan, err := g.Compile()
	if err != nil {
		b.Fatal(err)
	}
	device, err := cpu.New(0)
	if err != nil {
		b.Fatal(err)
	}
	defer device.Close()
	program, err := device.Load(plan, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i, o := range r.In {
		if o.DType == graph.Int32 {
			if err := program.WriteInts(o.Name, []int32{5000}); err != nil {
				b.Fatal(err)
			}
			continue
		}
		x := make([]float32, o.Shape.Size())
		for k := range x {
			x[k] = float32((k*(i+7)+k/13)%101)/50 - 1
		}
		if err := program.WriteFloats(o.Name, x); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		program.Run()
	}
	b.ReportMetric(s.Cost(r.Dims).FLOPs*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
}
