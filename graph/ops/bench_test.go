package ops_test

import (
	"fmt"
	"maps"
	"runtime"
	"sync"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cpu/peak"
	"github.com/sambatrain/sambatrain/graph/ops"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/internal/optest"
)

// BenchmarkCPU times the benchmark cases, with the shapes of real models, for 1,024 and 4,096
// tokens, forward and backward, on all cores. It reports the time per call, the rates of the work
// that the op declares, and the percentage reached of the tighter of this machine's two limits:
// %FLOPs or %bytes, depending on which limit that is. %bytes can be above 100, since operands in caches
// are faster than memory. The limits are the best rates so far, measured around each benchmark.
//
//	go test ./graph/ops -run '^$' -bench 'CPU/linear$'
func BenchmarkCPU(b *testing.B) {
	for _, op := range ops.All() {
		b.Run(op.Name, func(b *testing.B) {
			for _, c := range op.Cases() {
				if c.Bench {
					for _, c := range ofLengths(c) {
						benchCase(b, c)
					}
				}
			}
		})
	}
}

// ofLengths are a case of many tokens with 1,024 and with 4,096 tokens.
func ofLengths(c graph.Case) []graph.Case {
	if c.Dims["T"] <= 1 {
		return []graph.Case{c}
	}
	var list []graph.Case
	for _, tokens := range []int{1024, 4096} {
		longer := c
		longer.Name = fmt.Sprintf("%s/%d", c.Name, tokens)
		longer.Dims = maps.Clone(c.Dims)
		longer.Dims["T"] = tokens
		list = append(list, longer)
	}
	return list
}

func benchCase(b *testing.B, c graph.Case) {
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		b.Fatal(err)
	}
	calls := []*graph.Resolved{r}
	if c.Spec.Gradient != nil && c.Spec.Name != "add" {
		plan, err := optest.GradientPlan(c, r, make([]float64, r.Out[0].Shape.Size()))
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range optest.BackwardSteps(plan) {
			calls = append(calls, s.Resolved)
		}
	}
	for _, r := range calls {
		b.Run(r.Spec.Name+"/"+c.Name, func(b *testing.B) { bench(b, c, r) })
	}
}

func bench(b *testing.B, c graph.Case, r *graph.Resolved) {
	g := graph.NewBuilder(add.Spec)
	var in []graph.Tensor
	for _, o := range r.In {
		if o.Updated {
			in = append(in, g.State(o.Name, o.Shape...))
		} else {
			in = append(in, g.Input(o.Name, o.DType, o.Shape...))
		}
	}
	first := g.Apply(r.Spec, in...)
	for i, o := range r.Out {
		g.Result(o.Name, first.Output(i))
	}
	plan, err := g.Compile()
	if err != nil {
		b.Fatal(err)
	}
	dev, err := cpu.New(0)
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	p, err := dev.Load(plan, nil)
	if err != nil {
		b.Fatal(err)
	}
	// The case's fills are for its forward op, whose inputs the backward op has, too.
	drawn := optest.Draw(graph.Case{Name: c.Name, Spec: r.Spec, Fill: c.Fill}, r)
	for i, o := range r.In {
		switch {
		case o.Updated:
		case o.DType == graph.Int32:
			err = p.WriteInts(o.Name, converted[int32](drawn[i].Data))
		default:
			err = p.WriteFloats(o.Name, converted[float32](drawn[i].Data))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	machine().Turn()
	if err := p.Run(); err != nil { // a warm-up
		b.Fatal(err)
	}
	for b.Loop() {
		if err := p.Run(); err != nil {
			b.Fatal(err)
		}
	}
	machine().Turn()
	report(b, r.Spec.Cost(r.Dims))
}

// machine measures the peak of this machine, before and after each benchmark.
var machine = sync.OnceValue(func() *peak.Meter { return peak.NewMeter(runtime.GOMAXPROCS(0)) })

func report(b *testing.B, cost graph.Cost) {
	ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(cost.FLOPs/ns, "GFLOP/s")
	b.ReportMetric(cost.Bytes/ns, "GB/s")
	limits, limit := machine().Peak(), "%FLOPs"
	if limits.MemoryBound(cost.FLOPs, cost.Bytes) {
		limit = "%bytes"
	}
	b.ReportMetric(100*limits.Share(cost.FLOPs, cost.Bytes, ns/1e9), limit)
}

func converted[T int32 | float32](x []float64) []T {
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}
