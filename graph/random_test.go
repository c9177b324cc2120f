package graph_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// program is a random model, built in a graph and computed beside it, forwards and
// backwards, without any memory that is used twice.
type program struct {
	r     *rand.Rand
	b     *graph.Builder
	nodes []*node
	loss  []*node
	// paramsInBlocks: each block has a parameter of its own.
	paramsInBlocks bool
}

// node is a tensor of rows x cols, with its gradient.
type node struct {
	t        graph.Tensor
	cols     int
	value, d []float64
	kind     string // the op that made it
	leaf     string // the name of a parameter or an input
	result   string // its name as a result
	backward func(d []float64)
	isParam  bool
	differs  bool // depends on a parameter
	read     bool
	columns  bool // is columns of another one
	split    bool // has columns
}

const (
	batch  = 2
	tokens = 3
	rows   = batch * tokens
)

// tame says that products of n's elements don't grow.
func (n *node) tame() bool {
	return !slices.ContainsFunc(n.value, func(x float64) bool { return math.Abs(x) > 2 })
}

func (g *program) add(n *node) *node {
	n.d = make([]float64, len(n.value))
	g.nodes = append(g.nodes, n)
	return n
}

func (g *program) leaf(kind string, cols int) *node {
	n := &node{cols: cols, value: draw(g.r, rows*cols), kind: kind, leaf: fmt.Sprintf("%s%d", kind, len(g.nodes))}
	if kind == "param" {
		n.t, n.isParam, n.differs = g.b.Param(n.leaf, nil, batch, tokens, cols), true, true
	} else {
		n.t = g.b.Input(n.leaf, graph.Float32, batch, tokens, cols)
	}
	return g.add(n)
}

// own is n, behind an op where n's gradient would otherwise be its reader's, and n
// has to have one of its own.
func (g *program) own(n *node) *node {
	if n.isParam || n.columns {
		return g.scale(n)
	}
	return n
}

func (g *program) scale(x *node) *node {
	a := float64(1+g.r.IntN(3)) / 2
	x.read = true
	n := &node{t: g.b.Apply(scale(a), x.t), cols: x.cols, differs: x.differs, kind: "scale"}
	for _, v := range x.value {
		n.value = append(n.value, a*v)
	}
	n.backward = func(d []float64) {
		for e := range d {
			x.d[e] += a * d[e]
		}
	}
	return g.add(n)
}

func (g *program) mirror(x *node) *node {
	x.read = true
	turn := func(v []float64) []float64 {
		var out []float64
		for row := range slices.Chunk(v, x.cols) {
			row = slices.Clone(row)
			slices.Reverse(row)
			out = append(out, row...)
		}
		return out
	}
	n := &node{t: g.b.Apply(mirror(), x.t), cols: x.cols, value: turn(x.value), differs: x.differs, kind: "mirror"}
	n.backward = func(d []float64) {
		for e, v := range turn(d) {
			x.d[e] += v
		}
	}
	return g.add(n)
}

func (g *program) square(x *node) *node {
	x.read = true
	n := &node{t: g.b.Apply(square(), x.t), cols: x.cols, differs: x.differs, kind: "square"}
	slope := &node{cols: x.cols, kind: "slope", result: fmt.Sprintf("slope%d", len(g.nodes))}
	for _, v := range x.value {
		n.value, slope.value = append(n.value, v*v), append(slope.value, 2*v)
	}
	n.backward = func(d []float64) {
		for e := range d {
			x.d[e] += 2 * x.value[e] * d[e]
		}
	}
	if g.r.IntN(3) == 0 { // a saved output read as a result
		g.b.Result(slope.result, n.t.Output(1))
		slope.read = true
		g.add(slope)
	}
	return g.add(n)
}

func (g *program) mul(x, y *node) *node {
	x.read, y.read = true, true
	n := &node{t: g.b.Apply(mul(), x.t, y.t), cols: x.cols, differs: x.differs || y.differs, kind: "mul"}
	for e := range x.value {
		n.value = append(n.value, x.value[e]*y.value[e])
	}
	n.backward = func(d []float64) {
		for e := range d {
			x.d[e] += d[e] * y.value[e]
			y.d[e] += d[e] * x.value[e]
		}
	}
	return g.add(n)
}

func (g *program) sum(x, y *node) *node {
	x, y = g.own(x), g.own(y)
	x.read, y.read = true, true
	n := &node{t: g.b.Add(x.t, y.t), cols: x.cols, differs: x.differs || y.differs, kind: "add"}
	for e := range x.value {
		n.value = append(n.value, x.value[e]+y.value[e])
	}
	n.backward = func(d []float64) {
		for e := range d {
			x.d[e] += d[e]
			y.d[e] += d[e]
		}
	}
	return g.add(n)
}

// split cuts x in two or three runs of columns.
func (g *program) split(x *node) {
	x.read = true
	cuts := []int{0, 1 + g.r.IntN(x.cols-1), x.cols}
	if x.cols > 3 && g.r.IntN(2) == 0 {
		cuts = []int{0, 1, 1 + 1 + g.r.IntN(x.cols-2), x.cols}
	}
	order := g.r.Perm(len(cuts) - 1)
	for _, i := range order {
		from, to := cuts[i], cuts[i+1]
		n := &node{t: g.b.Columns(x.t, from, to), cols: to - from, differs: x.differs, columns: true, kind: "columns"}
		for r := range rows {
			n.value = append(n.value, x.value[r*x.cols+from:r*x.cols+to]...)
		}
		n.backward = func(d []float64) {
			for e, v := range d {
				x.d[e/n.cols*x.cols+from+e%n.cols] += v
			}
		}
		g.add(n)
	}
}

func (g *program) pick() *node {
	for {
		// Recent nodes more often, so that some live long and most don't.
		i := len(g.nodes) - 1 - int(g.r.ExpFloat64()*6)
		if i >= 0 && g.nodes[i].kind != "slope" {
			return g.nodes[i]
		}
	}
}

// like is a node as wide as x, x itself if there is no other.
func (g *program) like(x *node) *node {
	for range 20 {
		if y := g.pick(); y.cols == x.cols {
			return y
		}
	}
	return x
}

func (g *program) build(ops int) {
	for range 2 + g.r.IntN(3) {
		g.leaf("param", 2+g.r.IntN(6))
	}
	g.leaf("input", g.nodes[0].cols)
	for first := 0; first < ops; first += opsOfBlock {
		g.b.Block(func() {
			if g.paramsInBlocks {
				g.leaf("param", 2+g.r.IntN(6))
			}
			g.grow(first, min(first+opsOfBlock, ops))
		})
	}
	g.close()
}

// opsOfBlock is how many ops make a block that can be computed again.
const opsOfBlock = 7

func (g *program) grow(from, to int) {
	for op := from; op < to; op++ {
		x := g.pick()
		switch g.r.IntN(9) {
		case 0:
			g.scale(x)
		case 1:
			g.mirror(x)
		case 2:
			if x.tame() {
				g.square(x)
			}
		case 3, 4:
			if y := g.like(x); x.tame() && y.tame() {
				g.mul(x, y)
			}
		case 5, 6:
			g.sum(x, g.like(x))
		case 7:
			if x.cols > 1 && x.differs && !x.split {
				x.split = true
				g.split(x)
			}
		case 8:
			if x.result == "" {
				x.result = fmt.Sprintf("%s, picked by op %d", x.kind, op)
				g.b.Result(x.result, x.t)
			}
		}
	}
}

// close lets everything that nobody reads go into the loss, so that each parameter
// and all columns do.
func (g *program) close() {
	var in []graph.Tensor
	for _, n := range slices.Clone(g.nodes) {
		if n.differs && !n.read {
			n = g.own(n)
			g.loss = append(g.loss, n)
			in = append(in, n.t)
		}
	}
	loss := g.b.Apply(total(len(in)), in...)
	g.b.Result("loss", loss)
	if g.b.Gradients(loss) != nil {
		return
	}
	for i, n := range g.loss {
		for e := range n.d {
			n.d[e] += weight(i, e)
		}
	}
	for _, n := range slices.Backward(g.nodes) {
		if n.backward != nil {
			n.backward(n.d)
		}
	}
}

func (g *program) lossValue() float64 {
	s := 0.0
	for i, n := range g.loss {
		for e, x := range n.value {
			s += weight(i, e) * x
		}
	}
	return s
}

// TestRandomPrograms compares plans, whose arena is used again and again, with what
// was computed beside them.
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
		m.run() // the first run's left-overs must not matter
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

// compare holds results, and the sum of the gradients of several runs, against what
// was computed beside them.
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

// TestRandomProgramsAgain compares plans that compute all that they can again, and
// plans that keep to limits on the way there.
func TestRandomProgramsAgain(t *testing.T) {
	smaller, again := 0, 0
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
		for _, bytes := range []int64{largest, (largest + limit.Need) / 2, limit.Need} {
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
				again += len(p.Steps) - len(free.Steps)
			}
		}
	}
	if smaller < 20 || again < 100 {
		t.Errorf("only %d programs got smaller, by %d calls that are repeated", smaller, again)
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

// arenaWithoutReuse is the size that all outputs have together.
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

// untorn follows a plan's writes, byte by byte, and fails where a step reads a
// tensor of which another one has since overwritten a part.
func untorn(t *testing.T, p *graph.Plan) {
	t.Helper()
	type writer struct{ step, out int }
	type block struct {
		offset, stride int
		dtype          graph.DType
	}
	owner := map[int]writer{}  // by the arena's half-words
	home := map[writer]block{} // where what a writer wrote lies
	each := func(s graph.Slot, f func(halfword int)) {
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
			if (home[w] != block{s.Offset, s.Stride, s.DType}) {
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

// TestRandomProgramsInMixedPrecision: tensors of 2 and of 4 bytes an element share
// the arena, and no step reads what another has overwritten.
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
