package graph

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Init generates the initial values of a parameter.
type Init func(r *rand.Rand, w []float32)

// Param is a trained tensor and its name in a checkpoint.
type Param struct {
	Name  string
	Shape Shape
	Init  Init
	node  *gorgonia.Node
	grad  *gorgonia.Node
	block int // the block that asked for it first
}

// leaf is a tensor that no call produces.
type leaf struct {
	name   string
	shape  Shape
	dtype  DType
	region Region
	fixed  bool // at a given offset of a region that is used as a whole
	offset int
	node   *gorgonia.Node
}

// Param makes a float32 parameter under the current scope, or returns the existing one of this name
// (tied weights).
func (b *Builder) Param(name string, init Init, shape ...int) Tensor {
	if b.err != nil {
		return Tensor{}
	}
	path := b.Path(name)
	if p, ok := b.byName[path]; ok {
		if !p.Shape.Equal(shape) {
			return b.Fail(fmt.Errorf("parameter %s is %v and %v", path, p.Shape, Shape(shape)))
		}
		return Tensor{p.node, b}
	}
	for _, l := range b.leaves {
		if l.fixed {
			return b.Fail(fmt.Errorf("parameter %s: a graph that uses region %s as a whole can't have parameters", path, l.name))
		}
	}
	l, err := b.leaf(path, Params, Float32, shape)
	if err != nil {
		return b.Fail(err)
	}
	p := &Param{Name: path, Shape: l.shape, Init: init, node: l.node, block: b.block}
	b.params = append(b.params, p)
	b.byName[path] = p
	return Tensor{l.node, b}
}

// Input makes a tensor that the caller fills before each run.
func (b *Builder) Input(name string, t DType, shape ...int) Tensor {
	return b.external(name, Inputs, t, shape)
}

// State makes a float32 tensor, under the current scope, that persists between runs and is
// initially zero.
func (b *Builder) State(name string, shape ...int) Tensor {
	return b.external(b.Path(name), States, Float32, shape)
}

// IntState is a State with int32 elements.
func (b *Builder) IntState(name string, shape ...int) Tensor {
	return b.external(b.Path(name), States, Int32, shape)
}

// Cache is a State that is bfloat16 in mixed precision, except in float32 blocks.
func (b *Builder) Cache(name string, shape ...int) Tensor {
	t := Float32
	if b.round != nil && !b.precise() {
		t = BFloat16
	}
	return b.external(b.Path(name), States, t, shape)
}

// Whole is an entire persistent region as one vector of n float32 elements, for ops over flat
// buffers. A graph with parameters of its own can't use it.
func (b *Builder) Whole(r Region, n int) Tensor {
	if b.err != nil {
		return Tensor{}
	}
	if r < Params || r >= Regions {
		return b.Fail(fmt.Errorf("region %v can't be used as a whole", r))
	}
	if len(b.params) > 0 {
		return b.Fail(fmt.Errorf("region %v can't be used as a whole in a graph with parameters", r))
	}
	return b.fixed(r.String(), r, 0, n)
}

// Range is n float32 elements of a region starting at offset; otherwise it is like Whole. Repeated
// calls return the same tensor.
func (b *Builder) Range(r Region, offset, n int) Tensor {
	if b.err != nil {
		return Tensor{}
	}
	granule := align
	if r == Shadow {
		granule /= 2 // an element holds two weights
	}
	if r < Params || r >= Regions || offset < 0 || offset%granule != 0 {
		return b.Fail(fmt.Errorf("region %v can't be used from element %d on", r, offset))
	}
	if len(b.params) > 0 {
		return b.Fail(fmt.Errorf("region %v can't be used as a whole in a graph with parameters", r))
	}
	name := fmt.Sprintf("%v[%d:%d]", r, offset, offset+n)
	for _, l := range b.leaves {
		if l.fixed && l.name == name {
			return Tensor{l.node, b}
		}
	}
	return b.fixed(name, r, offset, n)
}

func (b *Builder) fixed(name string, r Region, offset, n int) Tensor {
	t := b.external(name, r, Float32, Shape{n})
	if t.Valid() {
		l := b.byNode[t.node]
		l.fixed, l.offset = true, offset
	}
	return t
}

func (b *Builder) external(name string, r Region, t DType, shape Shape) Tensor {
	if b.err != nil {
		return Tensor{}
	}
	l, err := b.leaf(name, r, t, shape)
	if err != nil {
		return b.Fail(err)
	}
	return Tensor{l.node, b}
}

func (b *Builder) leaf(name string, region Region, t DType, shape Shape) (*leaf, error) {
	if name == "" {
		return nil, errors.New("a tensor has no name")
	}
	if err := shape.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, l := range b.leaves {
		if l.name == name {
			return nil, fmt.Errorf("two tensors are named %s", name)
		}
	}
	dt := tensor.Float32
	if t == Int32 {
		dt = tensor.Int32
	}
	l := &leaf{name: name, shape: append(Shape{}, shape...), dtype: t, region: region}
	if len(shape) == 0 {
		l.node = gorgonia.NewScalar(b.g, dt, gorgonia.WithName(name))
	} else {
		l.node = gorgonia.NewTensor(b.g, dt, len(shape), gorgonia.WithName(name), gorgonia.WithShape(shape...))
	}
	b.leaves = append(b.leaves, l)
	b.byNode[l.node] = l
	return l, nil
}

// Params are the parameters in the order in which the model asked for them.
func (b *Builder) Params() []*Param { return b.params }

// ParamsLength is the length of region Params so far, including the padding between parameters.
func (b *Builder) ParamsLength() int {
	n := 0
	for _, p := range b.params {
		n += roundUp(p.Shape.Size())
	}
	return n
}
