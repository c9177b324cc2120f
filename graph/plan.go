package graph

import (
	"fmt"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
)

// Region is a block of memory that a plan's tensors lie in. All but the Arena
// and the Inputs live on between runs.
type Region uint8

// The regions. Params, Grads, ExpAvg and ExpAvgSq have one layout, so that an
// optimizer passes over them as flat vectors.
const (
	Arena    Region = iota // intermediate results
	Inputs                 // what the caller fills before a run
	States                 // what a run leaves for the next one
	Params                 // trained weights
	Grads                  // their gradients
	Accum                  // gradients summed over micro-batches
	Shadow                 // the weights rounded to bfloat16, in the parameters' order
	ExpAvg                 // AdamW's first moment
	ExpAvgSq               // AdamW's second moment
	Regions                // their number
)

func (r Region) String() string {
	names := [...]string{"arena", "inputs", "states", "params", "grads", "accum", "shadow", "exp_avg", "exp_avg_sq"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("Region(%d)", uint8(r))
}

// Slot is where a tensor lies: from column Col of a block that starts Offset times
// 4 bytes into its region. Col and Stride count elements of DType.
type Slot struct {
	Region             Region
	Offset, Col        int
	Rows, Cols, Stride int
	Shape              Shape
	DType              DType
}

// Step is one kernel call of a plan.
type Step struct {
	*Resolved
	In, Out []Slot
	// Path is the scope of the layer that the call belongs to.
	Path string
	// Backward marks calls of the backward pass.
	Backward bool
}

// ParamSlot is one parameter's place in Params, Grads and the moments.
type ParamSlot struct {
	Name   string
	Shape  Shape
	Offset int
	Init   Init
}

// Plan is a fixed list of kernel calls over memory that is laid out once.
type Plan struct {
	Steps  []Step
	Params []ParamSlot
	// Sizes are the regions' lengths, in elements of 4 bytes.
	Sizes [Regions]int
	// Inputs, Results and States are found by name.
	Inputs, Results, States map[string]Slot
}

// align is the granule of all offsets, in elements: 64 bytes, a cache line and an
// AVX-512 register.
const align = 16

func roundUp(n int) int { return (n + align - 1) / align * align }

// storage is a block that one or more values lie in. A storage whose home is set
// has become part of another one.
type storage struct {
	region      Region
	offset      int
	rows, cols  int
	dtype       DType
	first, last int
	home        *storage
}

func (s *storage) root() *storage {
	for s.home != nil {
		s = s.home
	}
	return s
}

// size is in units of 4 bytes.
func (s *storage) size() int { return roundUp((s.rows*s.cols*s.dtype.Size() + 3) / 4) }

// value is one tensor: some columns of a storage.
type value struct {
	shape Shape
	st    *storage
	col   int
}

func (v *value) whole() bool {
	return v.col == 0 && v.st.home == nil && v.st.cols == v.shape.Cols()
}

type pending struct {
	*call
	in, out []*value
}

type compiler struct {
	b       *Builder
	steps   []pending
	values  map[*gorgonia.Node]*value
	outputs map[*gorgonia.Node][]*value // a call's outputs
	inner   map[*gorgonia.Node]bool     // sums and places that became part of a join
	rounded map[*value]*value           // float32 values and their bfloat16 copies
}

// Compile orders the calls that the results and the gradients need, and lays out
// memory: liveness, one arena, nothing allocated in a run.
func (b *Builder) Compile() (*Plan, error) {
	if b.err != nil {
		return nil, b.err
	}
	c := &compiler{
		b:       b,
		values:  map[*gorgonia.Node]*value{},
		outputs: map[*gorgonia.Node][]*value{},
		inner:   map[*gorgonia.Node]bool{},
		rounded: map[*value]*value{},
	}
	p := &Plan{Inputs: map[string]Slot{}, Results: map[string]Slot{}, States: map[string]Slot{}}
	c.placeLeaves(p)
	if err := c.collect(); err != nil {
		return nil, err
	}
	if c.b.err != nil {
		return nil, c.b.err
	}
	if err := c.placeGradients(p); err != nil {
		return nil, err
	}
	if b.round != nil {
		p.Sizes[Shadow] = p.Sizes[Params] / 2
	}
	c.lifetimes()
	c.reuse()
	p.Sizes[Arena] = c.allocate()
	for _, s := range c.steps {
		step := Step{Resolved: s.Resolved, Path: s.path, Backward: s.backward}
		for _, v := range s.in {
			step.In = append(step.In, v.slot())
		}
		for _, v := range s.out {
			step.Out = append(step.Out, v.slot())
		}
		p.Steps = append(p.Steps, step)
	}
	for _, o := range b.out {
		p.Results[o.name] = c.values[o.node].slot()
	}
	for _, l := range b.leaves {
		switch s := c.values[l.node].slot(); l.region {
		case Inputs:
			p.Inputs[l.name] = s
		case States:
			p.States[l.name] = s
		}
	}
	return p, nil
}

func (v *value) slot() Slot {
	s := v.st.root()
	return Slot{Region: s.region, Offset: s.offset, Col: v.col, Rows: v.shape.Rows(), Cols: v.shape.Cols(),
		Stride: s.cols, Shape: v.shape, DType: s.dtype}
}

// placeLeaves gives inputs, states and parameters their places.
func (c *compiler) placeLeaves(p *Plan) {
	for _, l := range c.b.leaves {
		st := &storage{region: l.region, rows: l.shape.Rows(), cols: l.shape.Cols(), dtype: l.dtype}
		switch l.region {
		case Inputs, States, Params:
			st.offset = p.Sizes[l.region]
			p.Sizes[l.region] += st.size()
		default: // all of a flat buffer
			p.Sizes[l.region] = l.shape.Size()
		}
		c.values[l.node] = &value{shape: l.shape, st: st}
	}
	for _, q := range c.b.params {
		p.Params = append(p.Params, ParamSlot{q.Name, q.Shape, c.values[q.node].st.offset, q.Init})
	}
}

// needed are the nodes that results, gradients and updated states depend on.
func (c *compiler) needed() map[*gorgonia.Node]bool {
	need := map[*gorgonia.Node]bool{}
	var stack []*gorgonia.Node
	for _, o := range c.b.out {
		stack = append(stack, o.node)
	}
	stack = append(stack, c.b.roots...)
	for _, p := range c.b.params {
		if p.grad != nil {
			stack = append(stack, p.grad)
		}
	}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !need[n] {
			need[n] = true
			stack = append(stack, c.b.children(n)...)
		}
	}
	return need
}

// collect walks the nodes in the order of their making, which is an order of
// execution: a node is made after its inputs, and the backward pass in reverse.
func (c *compiler) collect() error {
	need := c.needed()
	nodes := slices.Clone(c.b.g.AllNodes())
	slices.SortFunc(nodes, func(a, b *gorgonia.Node) int { return int(a.ID() - b.ID()) })
	c.markJoins(nodes, need)
	for _, n := range nodes {
		if !need[n] || c.values[n] != nil || n == c.b.seed || c.inner[n] {
			continue
		}
		if err := c.node(n); err != nil {
			return err
		}
	}
	return nil
}

// markJoins finds the sums and places that belong to a larger sum of places.
func (c *compiler) markJoins(nodes []*gorgonia.Node, need map[*gorgonia.Node]bool) {
	for _, n := range slices.Backward(nodes) {
		if !need[n] || c.inner[n] || !isSum(n) {
			continue
		}
		terms := c.b.sumTerms(n, nil)
		if !slices.ContainsFunc(terms, isPlace) {
			continue
		}
		var mark func(*gorgonia.Node)
		mark = func(m *gorgonia.Node) {
			if m != n {
				c.inner[m] = true
			}
			if isSum(m) {
				for _, k := range c.b.children(m) {
					mark(k)
				}
			}
		}
		if !slices.ContainsFunc(terms, func(t *gorgonia.Node) bool { return !isPlace(t) }) {
			mark(n)
		}
	}
}

func isPlace(n *gorgonia.Node) bool {
	_, ok := n.Op().(*place)
	return ok
}

func (c *compiler) node(n *gorgonia.Node) error {
	if isSum(n) {
		if terms := c.b.sumTerms(n, nil); isPlace(terms[0]) {
			return c.join(n, terms)
		}
		r, err := c.b.add(len(n.Shape())).Resolve([]Shape{Shape(n.Shape()), Shape(n.Shape())})
		if err != nil {
			return err
		}
		path := ""
		if of := n.DerivOf(); len(of) > 0 {
			path = pathOf(of[0])
		}
		c.step(n, &call{Resolved: r, path: path, backward: true})
		return nil
	}
	switch op := n.Op().(type) {
	case *call:
		c.step(n, op)
	case *view:
		c.values[n] = c.outputs[c.b.children(n)[0]][op.index]
	case *columns:
		of := c.values[c.b.children(n)[0]]
		c.values[n] = &value{shape: op.shape(), st: of.st, col: of.col + op.from}
	case *place:
		return c.join(n, []*gorgonia.Node{n})
	default:
		return fmt.Errorf("graph: no rule to run %v", n)
	}
	return nil
}

func pathOf(n *gorgonia.Node) string {
	if c, ok := n.Op().(*call); ok {
		return c.path
	}
	return ""
}

func (c *compiler) step(n *gorgonia.Node, op *call) {
	s := pending{call: op}
	for i, k := range c.b.children(n) {
		s.in = append(s.in, c.asWanted(op.In[i], c.values[k]))
	}
	for i, o := range op.Out {
		st := &storage{rows: o.Shape.Rows(), cols: o.Shape.Cols(), dtype: o.DType}
		wide := i == 0 && op.Spec.Promote && slices.ContainsFunc(s.in, func(v *value) bool { return v.st.dtype == Float32 })
		if c.b.round != nil && o.DType == Float32 && o.Kind != Precise && !wide {
			st.dtype = BFloat16
		}
		s.out = append(s.out, &value{shape: o.Shape, st: st})
	}
	c.outputs[n] = s.out
	if len(s.out) > 0 {
		c.values[n] = s.out[0]
	} else {
		c.values[n] = &value{st: &storage{}}
	}
	c.steps = append(c.steps, s)
}

// asWanted is v in the type that an input takes it in: rounded for a matrix
// product in mixed precision, where v is not bfloat16 already.
func (c *compiler) asWanted(o Operand, v *value) *value {
	if c.b.round == nil || v.st.dtype != Float32 {
		return v
	}
	if v.st.region == Params {
		if o.Kind == Precise || len(v.shape) < 2 {
			return v
		}
		// The optimizer keeps a rounded copy of all weights.
		return &value{shape: v.shape, st: &storage{region: Shadow, offset: v.st.offset / 2,
			rows: v.st.rows, cols: v.st.cols, dtype: BFloat16}}
	}
	if o.Kind != Factor {
		return v
	}
	if r := c.rounded[v]; r != nil {
		return r
	}
	res, err := c.b.round.Resolve([]Shape{v.shape})
	if err != nil {
		c.b.Fail(err)
		return v
	}
	r := &value{shape: v.shape, st: &storage{rows: v.shape.Rows(), cols: v.shape.Cols(), dtype: BFloat16}}
	c.steps = append(c.steps, pending{call: &call{Resolved: res, path: "", backward: false}, in: []*value{v}, out: []*value{r}})
	c.rounded[v] = r
	return r
}

// join lets the gradients of x's columns lie where x's gradient has these
// columns, so that putting them together costs nothing.
func (c *compiler) join(n *gorgonia.Node, terms []*gorgonia.Node) error {
	shape := Shape(n.Shape())
	whole := &storage{rows: shape.Rows(), cols: shape.Cols(), dtype: c.values[c.b.children(terms[0])[0]].st.dtype}
	used := make([]bool, whole.cols)
	for _, t := range terms {
		op := t.Op().(*place)
		v := c.values[c.b.children(t)[0]]
		if v == nil || v.st.region != Arena || !v.whole() {
			return fmt.Errorf("columns: the gradient of columns %d to %d of %v is shared with another tensor's; copy one of them", op.from, op.from+op.in.Cols(), shape)
		}
		if v.st.dtype != whole.dtype {
			return fmt.Errorf("columns: the gradients of %v's columns are %v and %v", shape, whole.dtype, v.st.dtype)
		}
		for j := range op.in.Cols() {
			if used[op.from+j] {
				return fmt.Errorf("columns: column %d of %v is used twice", op.from+j, shape)
			}
			used[op.from+j] = true
		}
		// Every value that lies in v's storage moves with it.
		old := v.st
		c.eachValue(func(w *value) {
			if w.st == old {
				w.st, w.col = whole, w.col+op.from
			}
		})
	}
	if j := slices.Index(used, false); j >= 0 {
		return fmt.Errorf("columns: column %d of %v is not used, so its gradient is not known", j, shape)
	}
	c.values[n] = &value{shape: shape, st: whole}
	return nil
}

// eachValue visits every value once.
func (c *compiler) eachValue(f func(*value)) {
	seen := map[*value]bool{}
	visit := func(v *value) {
		if v != nil && !seen[v] {
			seen[v] = true
			f(v)
		}
	}
	for _, s := range c.steps {
		for _, v := range s.in {
			visit(v)
		}
		for _, v := range s.out {
			visit(v)
		}
	}
	for _, v := range c.values {
		visit(v)
	}
}

// placeGradients puts each parameter's gradient at the parameter's own offset.
func (c *compiler) placeGradients(p *Plan) error {
	for i, q := range c.b.params {
		if q.grad == nil {
			continue
		}
		v := c.values[q.grad]
		if v == nil || v.st.region != Arena || !v.whole() {
			return fmt.Errorf("graph: the gradient of %s is shared with another tensor's", q.Name)
		}
		v.st.region, v.st.offset, v.st.dtype = Grads, p.Params[i].Offset, Float32
		p.Sizes[Grads] = p.Sizes[Params]
	}
	return nil
}

func (c *compiler) lifetimes() {
	c.eachValue(func(v *value) { v.st.first, v.st.last = len(c.steps), -1 })
	for i, s := range c.steps {
		for _, v := range slices.Concat(s.in, s.out) {
			v.st.first = min(v.st.first, i)
			v.st.last = max(v.st.last, i)
		}
	}
	for _, o := range c.b.out {
		c.values[o.node].st.last = len(c.steps)
	}
}

// reuse lets output 0 take over an input's block that nothing reads afterwards.
func (c *compiler) reuse() {
	for i, s := range c.steps {
		if len(s.out) == 0 || s.out[0].st.region != Arena || !s.out[0].whole() {
			continue
		}
		out := s.out[0]
		for _, k := range s.Spec.InPlace {
			in := s.in[k]
			st := in.st.root()
			if st.region != Arena || st.last != i || in.col != 0 || st.dtype != out.st.dtype || st.cols != out.shape.Cols() || st.rows != out.shape.Rows() {
				continue
			}
			st.last = out.st.last
			out.st.home = st
			break
		}
	}
}

// allocate gives arena storages offsets so that those which live at the same
// time don't overlap: the largest first, each at the lowest free offset.
func (c *compiler) allocate() int {
	var list []*storage
	seen := map[*storage]bool{}
	for _, s := range c.steps {
		for _, v := range slices.Concat(s.in, s.out) {
			if st := v.st.root(); st.region == Arena && !seen[st] {
				seen[st] = true
				list = append(list, st)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *storage) int { return b.size() - a.size() })
	var placed []*storage // by offset
	total := 0
	for _, s := range list {
		s.offset = 0
		for _, q := range placed {
			if s.first <= q.last && q.first <= s.last && s.offset < q.offset+q.size() && q.offset < s.offset+s.size() {
				s.offset = q.offset + q.size()
			}
		}
		at, _ := slices.BinarySearchFunc(placed, s, func(a, b *storage) int { return a.offset - b.offset })
		placed = slices.Insert(placed, at, s)
		total = max(total, s.offset+s.size())
	}
	return total
}

// String lists the steps, for people.
func (p *Plan) String() string {
	var w strings.Builder
	for i, s := range p.Steps {
		fmt.Fprintf(&w, "%4d %-24s %s", i, s.Spec.Name, s.Path)
		for _, o := range s.Out {
			fmt.Fprintf(&w, " %v %v@%v+%d", o.Shape, o.DType, o.Region, o.Offset)
		}
		w.WriteByte('\n')
	}
	return w.String()
}
