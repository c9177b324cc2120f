package graph_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/all_gather"
	"github.com/sambatrain/sambatrain/graph/ops/reduce_scatter"
	"github.com/sambatrain/sambatrain/graph/ops/zero"
)

// alone is the sharding of a single process, whose pieces are everything.
func alone(like *graph.Plan) graph.Sharding {
	return graph.Sharding{Processes: 1, Gather: all_gather.PieceSpec(1), Reduce: reduce_scatter.PieceSpec(1), Clear: zero.Spec(), Like: like}
}

// TestRandomProgramsSharded: plans that gather parameters and reduce gradients agree with the
// direct computation, also within limits and when accumulating, and leave zeros in the gaps between
// parameters.
func TestRandomProgramsSharded(t *testing.T) {
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	gathers, again := 0, 0
	for seed := range uint64(80) {
		g := &program{r: rand.New(rand.NewPCG(seed, 5)), b: newBuilder(), paramsInBlocks: true}
		g.b.SetSharding(alone(nil))
		accumulate := seed%2 == 1
		if accumulate {
			g.b.SetAccumulate()
		}
		g.build(20 + g.r.IntN(60))
		p := compile(t, g.b)
		g.b.SetArenaLimit(int64(p.Sizes[graph.Arena]) * 7 / 2)
		if tight, err := g.b.Compile(); err == nil {
			again += len(tight.Steps) - len(p.Steps)
			g.runSharded(t, dev, tight, accumulate)
		}
		g.runSharded(t, dev, p, accumulate)
		if t.Failed() {
			t.Fatalf("seed %d:\n%v", seed, p)
		}
		for _, name := range steps(p) {
			if name == "all_gather_piece" {
				gathers++
			}
		}
	}
	if gathers < 200 || again < 50 {
		t.Errorf("only %d gathers, and %d calls that limits cost", gathers, again)
	}
}

// runSharded runs a plan twice on the CPU and compares results and gradients.
func (g *program) runSharded(t *testing.T, dev graph.Device, p *graph.Plan, accumulate bool) {
	t.Helper()
	mem, err := dev.NewMemory(p.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(p, mem)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	spoilt := slices.Repeat([]float32{float32(math.NaN())}, p.Sizes[graph.Arena])
	if err := mem.Write(graph.Arena, 0, spoilt); err != nil {
		t.Fatal(err)
	}
	for _, n := range g.nodes {
		switch {
		case n.isParam:
			err = mem.Write(graph.Params, paramSlot(p, n.leaf, graph.Params).Offset, float32s(n.value))
		case n.leaf != "":
			err = prog.WriteFloats(n.leaf, float32s(n.value))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := prog.Run(); err != nil {
			t.Fatal(err)
		}
	}
	runs := 1.0
	if accumulate {
		runs = 2
	}
	grads := make([]float32, p.Sizes[graph.Grads])
	if err := mem.Read(graph.Grads, 0, grads); err != nil {
		t.Fatal(err)
	}
	for _, n := range g.nodes {
		if n.result != "" {
			got := make([]float32, len(n.value))
			if err := prog.Read(n.result, got); err != nil {
				t.Fatal(err)
			}
			near(t, n.result, float64s(got), n.value, 1e-4)
		}
		if n.isParam {
			part := grads[paramSlot(p, n.leaf, graph.Grads).Offset:][:len(n.d)]
			want := slices.Clone(n.d)
			for i := range want {
				want[i] *= runs
			}
			near(t, fmt.Sprintf("gradient of %s", n.leaf), float64s(part), want, 1e-4)
			clear(part)
		}
	}
	for i, x := range grads {
		if x != 0 {
			t.Errorf("element %d of the gradients, which is no parameter's, is %v", i, x)
			break
		}
	}
}

// TestLayoutOfAnother: a plan can reuse another plan's layout, whichever parameters it reads, and
// rejects that of another model.
func TestLayoutOfAnother(t *testing.T) {
	build := func(names ...string) *graph.Builder {
		b := newBuilder()
		x := b.Input("x", graph.Float32, 1, 2, 8)
		for _, name := range names {
			b.Block(func() { x = b.Apply(mul(), x, b.Param(name, nil, 1, 2, 8)) })
		}
		b.Result("y", x)
		return b
	}
	b := build("first", "second")
	b.SetSharding(alone(nil))
	p := compile(t, b)
	b = build("second", "first")
	b.SetSharding(alone(p))
	q := compile(t, b)
	for _, name := range []string{"first", "second"} {
		if at, want := paramSlot(q, name, graph.Params).Offset, paramSlot(p, name, graph.Params).Offset; at != want {
			t.Errorf("%s is at %d, and at %d in the plan whose layout is taken", name, at, want)
		}
	}
	b = build("first", "third")
	b.SetSharding(alone(p))
	_, err := b.Compile()
	wantError(t, err, "parameter third[1 2 8] is not one of the plan's whose layout is taken")
}
