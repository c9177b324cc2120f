package graph_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// program is a random model, built in a graph and computed directly as well, forward and backward,
// without reusing memory.
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
	kind     string // the op that computed it
	leaf     string // the name of a parameter or an input
	result   string // its name as a result
	backward func(d []float64)
	isParam  bool
	differs  bool // depends on a parameter
	read     bool
	columns  bool // is some columns of another one
	split    bool // has columns
}

const (
	batch  = 2
	tokens = 3
	rows   = batch * tokens
)

// tame reports whether products of n's elements don't grow.
func (n *node) tame() bool {
	return !slices.ContainsFunc(n.value, func(x float64) bool { return math.Abs(x) > 2 }) &&
		slices.ContainsFunc(n.value, func(x float64) bool { return math.Abs(x) > 1e-3 })
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

// own is n, or n followed by an op where n's gradient would otherwise be the same tensor as its
// reader's, and n needs one of its own.
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

// mul is the product of x with y by the op mul, or with 1 + y by the op gate.
func (g *program) mul(op *graph.Spec, x, y *node) *node {
	x.read, y.read = true, true
	n := &node{t: g.b.Apply(op, x.t, y.t), cols: x.cols, differs: x.differs || y.differs, kind: op.Name}
	more := map[string]float64{"gate": 1}[op.Name]
	for e := range x.value {
		n.value = append(n.value, x.value[e]*(more+y.value[e]))
	}
	n.backward = func(d []float64) {
		for e := range d {
			x.d[e] += d[e] * (more + y.value[e])
			y.d[e] += d[e] * x.value[e]
		}
	}
	return g.add(n)
}

func (g *program) sum(x, y *node) *node {
	// One of the two may be a parameter: its gradient is then also that of the other.
	if shared := x.isParam != y.isParam && !x.columns && !y.columns && g.r.IntN(2) == 0; !shared {
		x, y = g.own(x), g.own(y)
	}
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

// split divides x into two or three ranges of columns.
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
		// Recent nodes are more likely, so that some live long and most don't.
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

// opsOfBlock is the number of ops in a block that can be recomputed.
const opsOfBlock = 7

func (g *program) grow(from, to int) {
	for op := from; op < to; op++ {
		x := g.pick()
		switch kind := g.r.IntN(9); kind {
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
				g.mul([]*graph.Spec{mul(), gate()}[kind-3], x, y)
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

// close adds everything that has no reader to the loss, so that it depends on each parameter and on
// all columns.
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
