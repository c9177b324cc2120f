package graph

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

type pending struct {
	*call
	in, out []*value
	holds   *storage // must not be overwritten before this step; nil for none
}

type compiler struct {
	b       *Builder
	sharder *sharder // nil without SetSharding
	steps   []pending
	values  map[*gorgonia.Node]*value
	outputs map[*gorgonia.Node][]*value // a call's outputs
	parts   map[*gorgonia.Node]bool     // places that a sum joins with others
	rounded map[*value]*value           // float32 values and their bfloat16 copies
	wide    map[*value]*value           // bfloat16 values and their float32 copies
	padded  map[int]*value              // copies of weights, by the weights' offsets in Shadow
	// gradients are the outputs that are gradients of parameters: always float32.
	gradients map[outputOf]bool
	// accumulated are the sums of parameters' gradients over several runs.
	accumulated map[*Param]*value
}

// outputOf is output i of a call, or of a sum.
type outputOf struct {
	n *gorgonia.Node
	i int
}

// Compile orders the calls that the results and the gradients depend on and lays out memory by
// liveness, in one arena, so that a run allocates nothing. If the arena would exceed SetArenaLimit,
// the backward pass recomputes tensors of blocks; a *LimitError means that even this does not
// suffice.
func (b *Builder) Compile() (*Plan, error) {
	if b.err != nil {
		return nil, b.err
	}
	c := newCompiler(b)
	p := &Plan{Inputs: map[string]Slot{}, Results: map[string]Slot{}, States: map[string]Slot{}}
	if err := c.placeLeaves(p); err != nil {
		return nil, err
	}
	if err := c.collect(); err != nil {
		return nil, err
	}
	if err := c.merge(); err != nil {
		return nil, err
	}
	if err := c.joinCarried(); err != nil {
		return nil, err
	}
	if err := c.placeGradients(p); err != nil {
		return nil, err
	}
	c.padRows()
	if err := c.size(p); err != nil {
		return nil, err
	}
	return p, c.write(p)
}

func newCompiler(b *Builder) *compiler {
	return &compiler{
		b:           b,
		values:      map[*gorgonia.Node]*value{},
		outputs:     map[*gorgonia.Node][]*value{},
		parts:       map[*gorgonia.Node]bool{},
		rounded:     map[*value]*value{},
		wide:        map[*value]*value{},
		padded:      map[int]*value{},
		gradients:   map[outputOf]bool{},
		accumulated: map[*Param]*value{},
	}
}

// size lays out the arena and sets the sizes of the plan's regions.
func (c *compiler) size(p *Plan) error {
	if c.b.round != nil {
		p.Sizes[Shadow] = p.Sizes[Params] / 2
	}
	arena, err := c.fit(c.b.arenaLimit)
	if err != nil {
		return err
	}
	p.Sizes[Arena] = arena
	if c.sharder != nil {
		c.sharder.size(p)
	}
	if r := c.b.reduction; r != nil {
		if p.Sizes[Grads] > r.Buckets.Length {
			return fmt.Errorf("graph: buckets of %d elements for %d gradients", r.Buckets.Length, p.Sizes[Grads])
		}
		p.Sizes[Grads] = r.Buckets.Length
	}
	return nil
}

// write sets the plan's steps and the slots that a caller reads and writes.
func (c *compiler) write(p *Plan) error {
	for _, s := range c.steps {
		step := Step{Resolved: s.Resolved, Path: s.path, Precise: s.precise, Backward: s.backward, Again: s.again, Remakes: s.remakes}
		for _, v := range s.in {
			step.In = append(step.In, v.slot())
		}
		for _, v := range s.out {
			step.Out = append(step.Out, v.slot())
		}
		if err := step.checkStrides(); err != nil {
			return err
		}
		p.Steps = append(p.Steps, step)
	}
	for _, o := range c.b.out {
		p.Results[o.name] = c.values[o.node].slot()
	}
	for _, l := range c.b.leaves {
		switch s := c.values[l.node].slot(); l.region {
		case Inputs:
			p.Inputs[l.name] = s
		case States:
			p.States[l.name] = s
		}
	}
	return nil
}

func (v *value) slot() Slot {
	s := v.st.root()
	slot := Slot{Region: s.region, Offset: s.place(), Col: v.col, Rows: v.shape.Rows(), Cols: v.shape.Cols(),
		Stride: s.stride(), Shape: v.shape, DType: s.dtype}
	if v.col+slot.Cols == s.cols {
		slot.Pad = s.pad
	}
	return slot
}

// checkStrides rejects strided rows where a kernel need not support them.
func (s *Step) checkStrides() error {
	for _, part := range []struct {
		operands []Operand
		slots    []Slot
	}{{s.Resolved.In, s.In}, {s.Resolved.Out, s.Out}} {
		for k, o := range part.operands {
			if slot := part.slots[k]; !o.Strided && slot.Rows > 1 && slot.Stride != slot.Cols {
				return fmt.Errorf("%s: %s%v can't be columns of a wider tensor; only activations [B T ...] can", inScope(s.Path, s.Spec.Name), o.Name, o.Shape)
			}
		}
	}
	return nil
}

// inScope is the path followed by a name.
func inScope(path, name string) string {
	if path == "" {
		return name
	}
	return path + ": " + name
}

// placeLeaves places inputs, states and parameters.
func (c *compiler) placeLeaves(p *Plan) (err error) {
	for _, l := range c.b.leaves {
		st := newStorage(l.region, l.shape, l.dtype)
		if l.fixed {
			st.offset = l.offset
			p.Sizes[l.region] = max(p.Sizes[l.region], l.offset+l.shape.Size())
		} else {
			st.offset = p.Sizes[l.region]
			p.Sizes[l.region] += st.size()
		}
		c.values[l.node] = st.hold(l.shape, 0)
	}
	if c.b.sharding != nil {
		if c.sharder, err = c.newSharder(); err != nil {
			return err
		}
	}
	for _, q := range c.b.params {
		p.Params = append(p.Params, ParamSlot{q.Name, q.Shape, c.values[q.node].st.offset, q.Init})
	}
	return nil
}

// accumulates reports whether kernels add gradients to those already stored. With sharding only a
// piece is stored, and the sum over the processes is added to it instead.
func (c *compiler) accumulates() bool { return c.b.accumulate && c.sharder == nil }

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

// collect visits the nodes in the order of their creation, which is an order of execution: a node
// is created after its inputs, and the backward pass after the forward pass, in reverse.
func (c *compiler) collect() error {
	for n, terms := range c.b.terms {
		for _, t := range terms {
			if p, ok := t.Op().(*place); ok && p.of == n && len(terms) > 1 {
				c.parts[t] = true
			}
		}
	}
	gradients := map[*gorgonia.Node]*Param{} // those to accumulate
	for _, p := range c.b.params {
		if p.grad == nil {
			continue
		}
		if c.accumulates() {
			if other := gradients[p.grad]; other != nil {
				return fmt.Errorf("graph: the gradient of %s is shared with another tensor's", p.Name)
			}
			gradients[p.grad] = p
		}
		of := outputOf{p.grad, 0}
		if v, ok := p.grad.Op().(*view); ok {
			of = outputOf{c.b.children(p.grad)[0], v.index}
		}
		c.gradients[of] = true
	}
	need := c.needed()
	nodes := slices.Clone(c.b.g.AllNodes())
	slices.SortFunc(nodes, func(a, b *gorgonia.Node) int { return int(a.ID() - b.ID()) })
	for _, n := range nodes {
		if !need[n] || c.values[n] != nil || n == c.b.seed || c.parts[n] {
			continue
		}
		v, err := c.node(n)
		if p := gradients[n]; err == nil && p != nil {
			c.accumulated[p], err = c.accumulate(p, v)
		}
		if err != nil {
			return err
		}
		c.values[n] = v
	}
	return c.checkUpdates()
}

// node adds the steps that compute n.
func (c *compiler) node(n *gorgonia.Node) (*value, error) {
	if terms, ok := c.b.sums[n]; ok {
		return c.sum(n, terms)
	}
	switch op := n.Op().(type) {
	case *call:
		in := make([]*value, 0, len(op.In))
		for _, k := range c.b.children(n) {
			in = append(in, c.values[k])
		}
		if sum, err := c.residual(n, op, in); sum != nil || err != nil {
			return sum, err
		}
		out, err := c.step(n, op, in)
		c.outputs[n] = out
		if err != nil || len(out) == 0 {
			return nil, err
		}
		return out[0], nil
	case *view:
		return c.outputs[c.b.children(n)[0]][op.index], nil
	case *columns:
		of := c.values[c.b.children(n)[0]]
		return of.st.hold(op.shape(), of.col+op.from), nil
	case *place:
		return c.join(op.shape(), []*gorgonia.Node{n})
	}
	return nil, fmt.Errorf("graph: no rule to run %v", n)
}

// step adds one call, whose output 0 is n's value; n is nil for part of a sum.
func (c *compiler) step(n *gorgonia.Node, op *call, in []*value) ([]*value, error) {
	for i, v := range in {
		if v == nil {
			return nil, fmt.Errorf("%s: %s is the gradient of the loss itself, which is no tensor; only an op whose Gradient asks IsSeed can end a graph", inScope(op.path, op.Spec.Name), op.In[i].Name)
		}
	}
	s := pending{call: op}
	for i, v := range in {
		w, err := c.asWanted(op, i, v)
		if err != nil {
			return nil, err
		}
		s.in = append(s.in, w)
	}
	for i, o := range op.Out {
		t := o.DType
		wide := i == 0 && op.Spec.Promote && slices.ContainsFunc(s.in, func(v *value) bool { return v.st.dtype == Float32 })
		if c.b.round != nil && !op.precise && t == Float32 && o.Kind != Precise && !wide && !c.gradients[outputOf{n, i}] {
			t = BFloat16
		}
		s.out = append(s.out, newStorage(Arena, o.Shape, t).hold(o.Shape, 0))
	}
	c.steps = append(c.steps, s)
	return s.out, nil
}

// shapes are the shapes of a step's inputs.
func (s *pending) shapes() []Shape {
	shapes := make([]Shape, 0, len(s.In)+1)
	for _, in := range s.In {
		shapes = append(shapes, in.Shape)
	}
	return shapes
}

// replace replaces the step's op, in the same place of the model.
func (s *pending) replace(r *Resolved) {
	other := *s.call
	other.Resolved = r
	s.call = &other
}

// checkUpdates rejects a backward pass that would read a tensor after it was updated.
func (c *compiler) checkUpdates() error {
	updated := map[*storage]*call{}
	for _, s := range c.steps {
		for _, v := range s.in {
			if by := updated[v.st]; by != nil && s.backward {
				return fmt.Errorf("%s: reads a tensor that %s has updated by then", inScope(s.path, s.Spec.Name), by.Spec.Name)
			}
		}
		for k, o := range s.call.In {
			if o.Updated {
				updated[s.in[k].st] = s.call
			}
		}
	}
	return nil
}

// placeGradients places each parameter's gradient at the offset of the parameter.
func (c *compiler) placeGradients(p *Plan) error {
	for i, q := range c.b.params {
		if q.grad == nil {
			continue
		}
		v := c.values[q.grad]
		if sum := c.accumulated[q]; sum != nil {
			v = sum
		}
		if v == nil || v.st.region != Arena || !v.whole() {
			return fmt.Errorf("graph: the gradient of %s is shared with another tensor's", q.Name)
		}
		v.st.region, v.st.offset, v.st.dtype = Grads, p.Params[i].Offset, Float32
		p.Sizes[Grads] = p.Sizes[Params]
	}
	return nil
}
