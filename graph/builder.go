package graph

import (
	"errors"
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"
)

// Builder collects a model's operations. It keeps the first error until Compile,
// so that a layer's mathematics reads without error checks.
type Builder struct {
	g      *gorgonia.ExprGraph
	add    func(rank int) *Spec
	scope  []string
	params []*Param
	byName map[string]*Param
	leaves []*leaf
	byNode map[*gorgonia.Node]*leaf
	roots  []*gorgonia.Node // calls that update their inputs
	out    []output
	ids    uint64
	seed   *gorgonia.Node
	carry  *Carry
	// documents are the starts of each token's document; the zero Tensor without.
	documents Tensor
	// round is the op that makes bfloat16 of float32; nil computes in float32.
	round *Spec
	// blocks is how many there are, and block the one being added, 0 outside.
	blocks, block int
	// float32Blocks is how many, the first ones, compute in float32 in mixed precision.
	float32Blocks int
	// arenaLimit is in bytes; 0 is none.
	arenaLimit int64
	// reduction sums gradients over processes; nil in a run of one.
	reduction *Reduction
	// sharding leaves a process pieces of parameters and gradients; nil leaves it all.
	sharding *Sharding
	// accumulate adds gradients to what Grads holds.
	accumulate bool
	// differentiating is the forward call whose backward ops are being added.
	differentiating *call
	terms           map[*gorgonia.Node][]*gorgonia.Node // node -> the gradients that reach it
	sums            map[*gorgonia.Node][]*gorgonia.Node // gradient of a node that several reach -> these
	err             error
}

type output struct {
	name string
	node *gorgonia.Node
}

// Carry makes a builder emit the stateful form of its ops: each call continues
// the text of the call before. Rows stay B; T is the tokens of one call.
type Carry struct {
	// Positions is how many tokens a cache of full attention holds.
	Positions int
	// Begins: all texts begin with this call, so that nothing came before its tokens.
	// Positions aren't read, nor what attention remembers; other states must be zeros.
	Begins bool
}

// NewBuilder starts a graph. add is the op that sums two tensors of a rank:
// residual connections use it, and so do gradients that meet.
func NewBuilder(add func(rank int) *Spec) *Builder {
	return &Builder{
		g:      gorgonia.NewGraph(),
		add:    add,
		byName: map[string]*Param{},
		byNode: map[*gorgonia.Node]*leaf{},
		terms:  map[*gorgonia.Node][]*gorgonia.Node{},
		sums:   map[*gorgonia.Node][]*gorgonia.Node{},
	}
}

// SetCarry chooses the stateful form of all ops that follow.
func (b *Builder) SetCarry(c Carry) { b.carry = &c }

// SetMixed chooses mixed precision: what Kind says of each operand. round is the
// op that makes bfloat16 of float32.
func (b *Builder) SetMixed(round *Spec) { b.round = round }

// SetFloat32Blocks leaves the first n blocks out of mixed precision, forward and backward:
// their tensors are float32, and so are the weights that they read. See Step.Precise.
func (b *Builder) SetFloat32Blocks(n int) { b.float32Blocks = n }

// Mixed reports whether SetMixed was called.
func (b *Builder) Mixed() bool { return b.round != nil }

// SetAccumulate makes the backward pass add to what region Grads holds, instead of
// writing over it: the gradients of several runs are summed.
func (b *Builder) SetAccumulate() { b.accumulate = true }

// SetArenaLimit makes Compile keep the tensors between kernels within this many
// bytes: what is over it is dropped after the forward pass and computed again in the
// backward pass. 0 is no limit.
func (b *Builder) SetArenaLimit(bytes int64) { b.arenaLimit = bytes }

// Carries is the stateful form's settings, nil in the ordinary form.
func (b *Builder) Carries() *Carry { return b.carry }

// Position is, in the stateful form, the int32 input [rows] that holds how many
// tokens of each row's text came before this call.
func (b *Builder) Position(rows int) Tensor {
	for _, l := range b.leaves {
		if l.name == PositionInput {
			return Tensor{l.node, b}
		}
	}
	return b.Input(PositionInput, Int32, rows)
}

// PositionInput is the name of Position's input.
const PositionInput = "position"

// Err is the first error.
func (b *Builder) Err() error { return b.err }

// Fail records err unless there was one before, and returns the zero Tensor. The
// error starts with the scope, the forward call's in the backward pass.
func (b *Builder) Fail(err error) Tensor {
	if b.err == nil && err != nil {
		if path := b.path(); path != "" {
			err = fmt.Errorf("%s: %w", path, err)
		}
		b.err = err
	}
	return Tensor{}
}

// path is the scope of what is being added.
func (b *Builder) path() string {
	if b.differentiating != nil {
		return b.differentiating.path
	}
	return strings.Join(b.scope, ".")
}

// precise reports whether what is being added belongs to a float32 block, as the backward
// ops of its calls do.
func (b *Builder) precise() bool {
	if b.differentiating != nil {
		return b.differentiating.precise
	}
	return 0 < b.block && b.block <= b.float32Blocks
}

func (b *Builder) nextID() uint64 {
	b.ids++
	return b.ids
}

// Scope runs f with name added to the path of parameters and states.
func (b *Builder) Scope(name string, f func()) {
	b.scope = append(b.scope, name)
	f()
	b.scope = b.scope[:len(b.scope)-1]
}

// Block runs f. What f adds is one block of the model, which the backward pass may compute
// again. What goes from one block to others is the model's stream.
func (b *Builder) Block(f func()) {
	b.blocks++
	b.block = b.blocks
	f()
	b.block = 0
}

// Path is name under the current scope.
func (b *Builder) Path(name string) string {
	return strings.Join(append(b.scope[:len(b.scope):len(b.scope)], name), ".")
}

// Apply adds one op and returns its output 0, the zero Tensor if it has none. The
// other outputs are had with Tensor.Output.
func (b *Builder) Apply(s *Spec, in ...Tensor) Tensor {
	if b.err != nil {
		return Tensor{}
	}
	shapes := make([]Shape, len(in))
	nodes := make([]*gorgonia.Node, len(in))
	for i, t := range in {
		if !t.Valid() {
			return b.Fail(fmt.Errorf("%s: input %d is missing", s.Name, i))
		}
		if t.b != b {
			return b.Fail(fmt.Errorf("%s: input %d belongs to another builder", s.Name, i))
		}
		shapes[i], nodes[i] = t.Shape(), t.node
	}
	if len(in) == 0 {
		return b.Fail(fmt.Errorf("%s: an op needs an input", s.Name))
	}
	r, err := s.Resolve(shapes)
	if err != nil {
		return b.Fail(err)
	}
	updates := false
	for i, o := range r.In {
		if t := in[i].DType(); t != o.DType {
			return b.Fail(fmt.Errorf("%s: %s must be %v, is %v", s.Name, o.Name, o.DType, t))
		}
		if o.Updated && b.byNode[nodes[i]] == nil {
			return b.Fail(fmt.Errorf("%s: %s is updated in place, so it must be a state or a region, not another op's output", s.Name, o.Name))
		}
		updates = updates || o.Updated
	}
	c := &call{Resolved: r, id: b.nextID(), path: b.path(), block: b.block, precise: b.precise(), backward: b.differentiating != nil, b: b}
	n, err := gorgonia.ApplyOp(c, nodes...)
	if err != nil {
		return b.Fail(fmt.Errorf("%s: %w", s.Name, err))
	}
	if updates {
		b.roots = append(b.roots, n)
	}
	if len(r.Out) == 0 {
		return Tensor{}
	}
	return Tensor{n, b}
}

// Add is x + y.
func (b *Builder) Add(x, y Tensor) Tensor { return b.Apply(b.add(len(x.Shape())), x, y) }

// Columns is columns [from, to) of x's last dimension, without a copy. To be
// differentiated, all of x's columns must be used, each by one Columns.
func (b *Builder) Columns(x Tensor, from, to int) Tensor {
	if b.err != nil {
		return Tensor{}
	}
	if !x.Valid() {
		return b.Fail(errors.New("columns: the input is missing"))
	}
	if x.DType() != Float32 {
		return b.Fail(fmt.Errorf("columns: the input must be float32, is %v", x.DType()))
	}
	s := x.Shape()
	if len(s) == 0 || from < 0 || to > s.Cols() || from >= to {
		return b.Fail(fmt.Errorf("columns: no columns %d to %d in %v", from, to, s))
	}
	n, err := gorgonia.ApplyOp(&columns{in: s, from: from, to: to, id: b.nextID(), b: b}, x.node)
	if err != nil {
		return b.Fail(err)
	}
	return Tensor{n, b}
}

// Result names a tensor that the caller reads after each run.
func (b *Builder) Result(name string, t Tensor) {
	if b.err != nil {
		return
	}
	if !t.Valid() {
		b.Fail(fmt.Errorf("result %s is missing", name))
		return
	}
	for _, o := range b.out {
		if o.name == name {
			b.Fail(fmt.Errorf("two results are named %s", name))
			return
		}
	}
	b.out = append(b.out, output{name, t.node})
}
