package graph_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// TestRandomPrograms compares plans, whose arena is reused again and again, with the direct
// computation.
func TestRandomPrograms(t *testing.T) {
	reused := 0
	for seed := range uint64(150) {
		g := &program{r: rand.New(rand.NewPCG(seed, 1)), b: newBuilder()}
		g.build(10 + g.r.IntN(60))
		if g.b.Err() != nil {
			t.Fatalf("seed %d: %v", seed, g.b.Err())
		}
		p, err := g.b.Compile()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		untorn(t, p)
		if all := arenaWithoutReuse(p); all < p.Sizes[graph.Arena] {
			t.Errorf("seed %d: the arena of %d is larger than all tensors, %d", seed, p.Sizes[graph.Arena], all)
		} else if p.Sizes[graph.Arena] < all*2/3 {
			reused++
		}
		m := g.load(t, p)
		m.run()
		m.run() // remains of the first run must not matter
		g.compare(t, m, 1)
		if t.Failed() {
			t.Fatalf("seed %d:\n%v", seed, p)
		}
	}
	if reused < 100 {
		t.Errorf("only %d of 150 programs use their arena again to speak of", reused)
	}
}

// load gives a plan the program's parameters and inputs.
func (g *program) load(t *testing.T, p *graph.Plan) *machines {
	t.Helper()
	m := load(t, p)
	for _, n := range g.nodes {
		switch {
		case n.isParam:
			m.param(n.leaf, n.value)
		case n.leaf != "":
			m.input(n.leaf, n.value)
		}
	}
	return m
}

// compare compares results, and the sum of the gradients of several runs, with the direct
// computation.
func (g *program) compare(t *testing.T, m *machines, runs float64) {
	t.Helper()
	for _, n := range g.nodes {
		if n.result != "" {
			m.result(n.result, n.value)
		}
		if n.isParam {
			sum := slices.Clone(n.d)
			for i := range sum {
				sum[i] *= runs
			}
			m.gradient(n.leaf, sum)
		}
	}
	m.result("loss", []float64{g.lossValue()})
}

// TestRandomProgramsAgain tests plans that recompute everything possible, and plans with limits in
// between.
func TestRandomProgramsAgain(t *testing.T) {
	smaller, again, fused := 0, 0, 0
	for seed := range uint64(80) {
		g := &program{r: rand.New(rand.NewPCG(seed, 3)), b: newBuilder()}
		g.build(20 + g.r.IntN(60))
		free := compile(t, g.b)
		g.b.SetArenaLimit(1)
		_, err := g.b.Compile()
		var limit *graph.LimitError
		if !errors.As(err, &limit) || limit.Limit != 1 {
			t.Fatalf("seed %d: a limit of 1: %v", seed, err)
		}
		largest := 4 * int64(free.Sizes[graph.Arena])
		for _, bytes := range []int64{largest, (largest + limit.Need) / 2, (largest + 3*limit.Need) / 4, limit.Need} {
			g.b.SetArenaLimit(bytes)
			p := compile(t, g.b)
			if got := 4 * int64(p.Sizes[graph.Arena]); got > bytes {
				t.Errorf("seed %d: the arena takes %d bytes, the limit is %d", seed, got, bytes)
			}
			untorn(t, p)
			m := g.load(t, p)
			m.run()
			m.run()
			g.compare(t, m, 1)
			if t.Failed() {
				t.Fatalf("seed %d, limit %d:\n%v", seed, bytes, p)
			}
			if bytes == limit.Need && limit.Need < largest {
				smaller++
				for _, s := range p.Steps {
					if s.Again {
						again++
					}
					if s.Remakes != "" {
						fused++
					}
				}
			}
		}
	}
	if smaller < 20 || again < 100 || fused == 0 {
		t.Errorf("only %d programs got smaller, by %d calls that are repeated and %d backward ones that do as much", smaller, again, fused)
	}
}

// TestRandomLimits: a plan fits each limit that is not below what it needs when everything is
// recomputed, and gives the same numbers.
func TestRandomLimits(t *testing.T) {
	limits := 0
	for _, seeds := range []struct{ from, to, stream uint64 }{{0, 70, 34}, {150, 190, 33}} {
		for seed := seeds.from; seed < seeds.to; seed++ {
			g := &program{r: rand.New(rand.NewPCG(seed, seeds.stream)), b: newBuilder()}
			g.build(20 + g.r.IntN(60))
			largest := 4 * int64(compile(t, g.b).Sizes[graph.Arena])
			g.b.SetArenaLimit(1)
			_, err := g.b.Compile()
			var limit *graph.LimitError
			if !errors.As(err, &limit) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for bytes := limit.Need; bytes < largest; bytes += 64 {
				limits++
				g.b.SetArenaLimit(bytes)
				p, err := g.b.Compile()
				if err != nil || 4*int64(p.Sizes[graph.Arena]) > bytes {
					t.Fatalf("seed %d: a limit of %d, where %d are enough: %v", seed, bytes, limit.Need, err)
				}
				m := g.load(t, p)
				m.run()
				g.compare(t, m, 1)
				if t.Failed() {
					t.Fatalf("seed %d of stream %d, limit %d:\n%v", seed, seeds.stream, bytes, p)
				}
			}
		}
	}
	if limits < 300 {
		t.Errorf("only %d limits", limits)
	}
}

// TestRandomProgramsAccumulate: gradients of two runs are summed.
func TestRandomProgramsAccumulate(t *testing.T) {
	for seed := range uint64(80) {
		g := &program{r: rand.New(rand.NewPCG(seed, 4)), b: newBuilder()}
		g.b.SetAccumulate()
		g.build(10 + g.r.IntN(60))
		p := compile(t, g.b)
		untorn(t, p)
		m := g.load(t, p)
		m.run()
		g.compare(t, m, 1)
		m.run()
		g.compare(t, m, 2)
		if t.Failed() {
			t.Fatalf("seed %d:\n%v", seed, p)
		}
	}
}

// arenaWithoutReuse is the total size of all outputs.
func arenaWithoutReuse(p *graph.Plan) int {
	n := 0
	for _, s := range p.Steps {
		for _, o := range s.Out {
			if o.Region == graph.Arena {
				n += (o.Rows*o.Cols + 15) / 16 * 16
			}
		}
	}
	return n
}

// untorn tracks a plan's writes, half-word by half-word, and fails if a step reads a tensor of
// which another step has overwritten a part.
func untorn(t *testing.T, p *graph.Plan) {
	t.Helper()
	type writer struct{ step, out int }
	type block struct {
		offset, stride int
		dtype          graph.DType
	}
	owner := map[int]writer{}  // by half-word of the arena
	home := map[writer]block{} // the place of what a writer wrote
	each := func(s graph.Slot, f func(halfword int)) {
		if s.DType == graph.Float24 { // its rows are dense
			for j := range (s.Rows*s.Cols*s.DType.Size() + 1) / 2 {
				f(2*s.Offset + j)
			}
			return
		}
		size := s.DType.Size() / 2
		for r := range s.Rows {
			for j := range s.Cols * size {
				f(2*s.Offset + (r*s.Stride+s.Col)*size + j)
			}
		}
	}
	check := func(what string, s graph.Slot) {
		if s.Region != graph.Arena {
			return
		}
		each(s, func(at int) {
			w, written := owner[at]
			if !written {
				t.Fatalf("%s reads what nobody wrote, at %d", what, s.Offset)
			}
			firstPlane := s.DType == graph.BFloat16 && home[w] == block{s.Offset, s.Stride, graph.Float24}
			if !firstPlane && home[w] != (block{s.Offset, s.Stride, s.DType}) {
				t.Fatalf("%s reads %+v, a part of which step %d has overwritten", what, s, w.step)
			}
		})
	}
	for i, s := range p.Steps {
		for k, in := range s.In {
			check(fmt.Sprintf("step %d (%s) input %d", i, s.Spec.Name, k), in)
		}
		for k, out := range s.Out {
			if out.Region != graph.Arena {
				continue
			}
			w := writer{i, k}
			home[w] = block{out.Offset, out.Stride, out.DType}
			each(out, func(at int) {
				if 2*p.Sizes[graph.Arena] <= at {
					t.Fatalf("step %d (%s) output %d reaches beyond the arena", i, s.Spec.Name, k)
				}
				if other, ok := owner[at]; ok && other.step == i {
					t.Fatalf("step %d (%s): outputs %d and %d overlap", i, s.Spec.Name, other.out, k)
				}
				owner[at] = w
			})
		}
	}
	for name, s := range p.Results {
		check("result "+name, s)
	}
}

// TestRandomProgramsInMixedPrecision: tensors of 2 and of 4 bytes per element share the arena, and
// no step reads what another has overwritten.
func TestRandomProgramsInMixedPrecision(t *testing.T) {
	rounds, halves := 0, 0
	for seed := range uint64(100) {
		g := &program{r: rand.New(rand.NewPCG(seed, 2)), b: newBuilder()}
		g.b.SetMixed(round.Spec())
		g.build(10 + g.r.IntN(60))
		p, err := g.b.Compile()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		untorn(t, p)
		for _, s := range p.Steps {
			if s.Spec.Name == "round" {
				rounds++
			}
			for k, o := range s.Out {
				if o.DType == graph.BFloat16 {
					halves++
				}
				if o.DType == graph.BFloat16 && (o.Region == graph.Grads || s.Resolved.Out[k].Kind == graph.Precise) {
					t.Errorf("seed %d: %s: %s is %v", seed, s.Spec.Name, s.Resolved.Out[k].Name, o.DType)
				}
			}
			for k, in := range s.In {
				if s.Resolved.In[k].Kind == graph.Factor && in.DType != graph.BFloat16 {
					t.Errorf("seed %d: %s: factor %s is %v", seed, s.Spec.Name, s.Resolved.In[k].Name, in.DType)
				}
			}
		}
	}
	if rounds < 50 || halves < 1000 {
		t.Errorf("only %d tensors are rounded, %d are bfloat16", rounds, halves)
	}
}
