package graph

import (
	"errors"
	"fmt"
	"strings"

	"gorgonia.org/gorgonia"
)

// Builder collects a model's operations. It keeps the first error until Compile, so that the code
// of a layer needs no error checks.
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
	// documents holds the start of each token's document; the zero Tensor if there are none.
	documents Tensor
	// round is the op that converts float32 to bfloat16; nil means that all is float32.
	round *Spec
	// blocks is the number of blocks, and block the one being added, 0 outside.
	blocks, block int
	// float32Blocks is the number of blocks, from the first, that mixed precision leaves in
	// float32.
	float32Blocks int
	// arenaLimit is in bytes; 0 means no limit.
	arenaLimit int64
	// reduction sums gradients over processes; nil with a single process.
	reduction *Reduction
	// sharding gives each process pieces of parameters and gradients; nil gives it all of them.
	sharding *Sharding
	// accumulate adds gradients to the contents of Grads.
	accumulate bool
	// differentiating is the forward call whose backward ops are being added.
	differentiating *call
	terms           map[*gorgonia.Node][]*gorgonia.Node // node -> the gradients that it gets
	sums            map[*gorgonia.Node][]*gorgonia.Node // sum of a node's gradients -> its terms
	err             error
}

type output struct {
	name string
	node *gorgonia.Node
}

// Carry makes a builder emit the stateful form of its ops: each call continues the text of the
// previous call. There are still B rows; T is the tokens of one call.
type Carry struct {
	// Positions is the number of tokens that a cache of full attention can hold.
	Positions int
	// Begins: all texts begin with this call, so nothing precedes its tokens. Positions are not
	// read, nor the caches of attention; all other states must be zero.
	Begins bool
}

// NewBuilder starts a graph. add is the op that sums two tensors of a given rank: it serves
// residual connections, and tensors that several gradients reach.
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

// SetCarry selects the stateful form for all ops added afterwards.
func (b *Builder) SetCarry(c Carry) { b.carry = &c }

// SetMixed selects mixed precision, in which Kind determines each operand's type. round is the op
// that converts float32 to bfloat16.
func (b *Builder) SetMixed(round *Spec) { b.round = round }

// SetFloat32Blocks excludes the first n blocks from mixed precision, forward and backward: their
// tensors are float32, and so are the weights that they read. See Step.Precise.
func (b *Builder) SetFloat32Blocks(n int) { b.float32Blocks = n }

// Mixed reports whether SetMixed was called.
func (b *Builder) Mixed() bool { return b.round != nil }

// SetAccumulate makes the backward pass add to the contents of region Grads instead of overwriting
// them: the gradients of several runs are summed.
func (b *Builder) SetAccumulate() { b.accumulate = true }

// SetArenaLimit makes Compile keep the tensors between kernels within this many bytes: what exceeds
// them is dropped after the forward pass and recomputed in the backward pass. 0 means no limit.
func (b *Builder) SetArenaLimit(bytes int64) { b.arenaLimit = bytes }

// Carries is the settings of the stateful form, nil in the ordinary form.
func (b *Builder) Carries() *Carry { return b.carry }

// Position is, in the stateful form, the int32 input [rows] that holds the number of tokens of each
// row's text before this call.
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

// Fail records err unless there was an error before, and returns the zero Tensor. The message
// starts with the current scope or, in the backward pass, that of the forward call.
func (b *Builder) Fail(err error) Tensor {
	if b.err == nil && err != nil {
		if path := b.path(); path != "" {
			err = fmt.Errorf("%s: %w", path, err)
		}
		b.err = err
	}
	return Tensor{}
}

// path is the scope of the ops being added.
func (b *Builder) path() string {
	if b.differentiating != nil {
		return b.differentiating.path
	}
	return strings.Join(b.scope, ".")
}

// precise reports whether the ops being added belong to a float32 block; backward ops belong to the
// block of their forward call.
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

// Block runs f. The ops that f adds are one block of the model, which the backward pass may
// recompute. Tensors that go from one block to another are the model's stream.
func (b *Builder) Block(f func()) {
	b.blocks++
	b.block = b.blocks
	f()
	b.block = 0
}

// Path is the name prefixed with the current scope.
func (b *Builder) Path(name string) string {
	return strings.Join(append(b.scope[:len(b.scope):len(b.scope)], name), ".")
}

// Apply adds one op and returns its output 0, or the zero Tensor if it has none. Use Tensor.Output
// for the other outputs.
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

// Columns is columns [from, to) of x's last dimension, without a copy. For differentiation, each of
// x's columns must be in exactly one Columns.
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
