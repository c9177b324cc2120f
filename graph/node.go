package graph

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	_ "go4.org/unsafe/assume-no-moving-gc" // gorgonia panics at startup without a version of this that knows the Go version
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// call is the op of a node in gorgonia's graph: one Spec with its sizes.
//
// gorgonia merges nodes whose hashes are equal without comparing their children, so every call has
// a unique number in its hash and is never merged.
type call struct {
	machine
	*Resolved
	id       uint64
	path     string
	block    int  // of the forward pass, counted from 1; 0 is outside of all blocks
	precise  bool // see Step.Precise
	backward bool
	again    bool   // a forward call that the backward pass repeats
	remakes  string // of a backward call: the forward op whose output it recomputes
	b        *Builder
}

// view is output i > 0 of a call. The call's own node stands for output 0.
type view struct {
	machine
	of    *call
	index int
	id    uint64
}

// columns is a range of x's columns, without a copy. place is its gradient, which Compile joins
// with those of the other columns.
type columns struct {
	machine
	in       Shape
	from, to int
	id       uint64
	b        *Builder
}

type place struct {
	machine
	of          *gorgonia.Node // the tensor whose columns they are
	total, from int
	in          Shape
	id          uint64
}

func nodeType(t DType, s Shape) hm.Type {
	dt := tensor.Float32
	if t == Int32 {
		dt = tensor.Int32
	}
	if len(s) == 0 {
		return dt
	}
	return gorgonia.TensorType{Dims: len(s), Of: dt}
}

// output0 is the shape and type of the call's node. A call without outputs, which only updates its
// inputs, is a scalar that nothing reads.
func (c *call) output0() (Shape, DType) {
	if len(c.Out) == 0 {
		return Shape{}, Float32
	}
	return c.Out[0].Shape, c.Out[0].DType
}

func (c *call) Arity() int { return len(c.In) }

func (c *call) Type() hm.Type {
	ts := make([]hm.Type, 0, len(c.In)+1)
	for _, in := range c.In {
		ts = append(ts, nodeType(in.DType, in.Shape))
	}
	s, t := c.output0()
	return hm.NewFnType(append(ts, nodeType(t, s))...)
}

func (c *call) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	s, _ := c.output0()
	return tensor.Shape(s).Clone(), nil
}

func (c *call) DiffWRT(n int) []bool {
	d := make([]bool, n)
	// An op without a gradient returns true as well, so that a loss that depends on it is rejected:
	// gorgonia would silently leave out its contribution.
	for i, in := range c.In {
		d[i] = in.DType == Float32 && !in.Updated
	}
	return d
}

func (c *call) SymDiff(inputs gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	c.b.differentiating = c
	nodes, err := c.gradients(inputs, output, grad)
	c.b.Fail(err)
	c.b.differentiating = nil
	return nodes, c.b.err
}

func (c *call) gradients(inputs gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if c.Spec.Gradient == nil {
		return nil, fmt.Errorf("%s has no gradient", c.Spec.Name)
	}
	g := &Gradient{DOut: Tensor{node: grad, b: c.b}, b: c.b}
	for _, n := range inputs {
		g.In = append(g.In, Tensor{node: n, b: c.b})
	}
	out := Tensor{node: output, b: c.b}
	for i := range c.Out {
		g.Out = append(g.Out, out.Output(i))
	}
	grads := c.Spec.Gradient(g)
	if c.b.err != nil {
		return nil, c.b.err
	}
	if len(grads) != len(inputs) {
		return nil, fmt.Errorf("%s: the gradient has %d parts for %d inputs", c.Spec.Name, len(grads), len(inputs))
	}
	nodes := make(gorgonia.Nodes, len(grads))
	for i, wanted := range c.DiffWRT(len(inputs)) {
		if !wanted {
			continue
		}
		t := grads[i]
		if t.node == nil {
			return nil, fmt.Errorf("%s: no gradient for %s", c.Spec.Name, c.In[i].Name)
		}
		if !t.Shape().Equal(c.In[i].Shape) {
			return nil, fmt.Errorf("%s: gradient of %s is %v, not %v", c.Spec.Name, c.In[i].Name, t.Shape(), c.In[i].Shape)
		}
		nodes[i] = t.node
		c.b.contribute(inputs[i], t.node)
	}
	return nodes, nil
}

func (v *view) Arity() int { return 1 }

func (v *view) Type() hm.Type {
	s, t := v.of.output0()
	o := v.of.Out[v.index]
	return hm.NewFnType(nodeType(t, s), nodeType(o.DType, o.Shape))
}

func (v *view) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.Shape(v.of.Out[v.index].Shape).Clone(), nil
}

// DiffWRT returns true so that SymDiff is called and rejects a loss that depends on v.
func (v *view) DiffWRT(int) []bool { return []bool{v.of.Out[v.index].DType == Float32} }

func (v *view) SymDiff(gorgonia.Nodes, *gorgonia.Node, *gorgonia.Node) (gorgonia.Nodes, error) {
	v.of.b.differentiating = v.of
	v.of.b.Fail(fmt.Errorf("%s: output %s can't be differentiated", v.of.Spec.Name, v.of.Out[v.index].Name))
	v.of.b.differentiating = nil
	return nil, v.of.b.err
}

func (c *columns) shape() Shape {
	s := append(Shape{}, c.in...)
	s[len(s)-1] = c.to - c.from
	return s
}

func (c *columns) Arity() int { return 1 }

func (c *columns) Type() hm.Type {
	return hm.NewFnType(nodeType(Float32, c.in), nodeType(Float32, c.in))
}

func (c *columns) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.Shape(c.shape()).Clone(), nil
}

func (c *columns) DiffWRT(int) []bool { return []bool{true} }

func (c *columns) SymDiff(inputs gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	p := &place{of: inputs[0], total: c.in.Cols(), from: c.from, in: c.shape(), id: c.b.nextID()}
	n, err := gorgonia.ApplyOp(p, grad)
	if err != nil {
		return nil, err
	}
	c.b.contribute(inputs[0], n)
	return gorgonia.Nodes{n}, nil
}

func (p *place) shape() Shape {
	s := append(Shape{}, p.in...)
	s[len(s)-1] = p.total
	return s
}

func (p *place) Arity() int { return 1 }

func (p *place) Type() hm.Type {
	return hm.NewFnType(nodeType(Float32, p.in), nodeType(Float32, p.in))
}

func (p *place) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.Shape(p.shape()).Clone(), nil
}

// writeID hashes what makes a node unique.
func writeID(h hash.Hash, kind string, id uint64) {
	var buf [8]byte
	binary.LittleEndian.PutUint64(buf[:], id)
	h.Write([]byte(kind))
	h.Write(buf[:])
}

func hashcode(write func(hash.Hash)) uint32 {
	h := fnv.New32a()
	write(h)
	return h.Sum32()
}

func (c *call) WriteHash(h hash.Hash)    { writeID(h, c.Spec.Name, c.id) }
func (v *view) WriteHash(h hash.Hash)    { writeID(h, "view", v.id) }
func (c *columns) WriteHash(h hash.Hash) { writeID(h, "columns", c.id) }
func (p *place) WriteHash(h hash.Hash)   { writeID(h, "place", p.id) }

func (c *call) Hashcode() uint32    { return hashcode(c.WriteHash) }
func (v *view) Hashcode() uint32    { return hashcode(v.WriteHash) }
func (c *columns) Hashcode() uint32 { return hashcode(c.WriteHash) }
func (p *place) Hashcode() uint32   { return hashcode(p.WriteHash) }

func (c *call) String() string    { return fmt.Sprintf("%s#%d", c.Spec.Name, c.id) }
func (v *view) String() string    { return fmt.Sprintf("%s.%s", v.of, v.of.Out[v.index].Name) }
func (c *columns) String() string { return fmt.Sprintf("columns[%d:%d]#%d", c.from, c.to, c.id) }
func (p *place) String() string   { return fmt.Sprintf("place[%d of %d]#%d", p.from, p.total, p.id) }

// errNotRun is what gorgonia's own machines get: nodes run only in a Plan.
var errNotRun = fmt.Errorf("this op runs only through a compiled graph.Plan")

// machine implements the part of gorgonia.Op that serves gorgonia's own machines, which never run
// these nodes.
type machine struct{}

func (machine) Do(...gorgonia.Value) (gorgonia.Value, error) { return nil, errNotRun }
func (machine) ReturnsPtr() bool                             { return false }
func (machine) CallsExtern() bool                            { return false }
func (machine) OverwritesInput() int                         { return -1 }
