package graph

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Tensor is a value of the graph under construction. The zero Tensor means "none"; every operation
// also returns it after the builder's first error.
type Tensor struct {
	node *gorgonia.Node
	b    *Builder
}

// Shape is the tensor's shape, nil for the zero Tensor.
func (t Tensor) Shape() Shape {
	if t.node == nil {
		return nil
	}
	return Shape(t.node.Shape())
}

// DType is the type of the tensor's elements.
func (t Tensor) DType() DType {
	if t.node != nil && t.node.Dtype() == tensor.Int32 {
		return Int32
	}
	return Float32
}

// Valid reports whether t is a tensor at all.
func (t Tensor) Valid() bool { return t.node != nil }

func (t Tensor) isSeed() bool { return t.node != nil && t.node == t.b.seed }

// Output is output i of the op that produced t; t itself for 0.
func (t Tensor) Output(i int) Tensor {
	if i == 0 || t.node == nil {
		return t
	}
	c, ok := t.node.Op().(*call)
	if !ok || i < 0 || i >= len(c.Out) {
		return t.b.Fail(fmt.Errorf("%v has no output %d", t.node, i))
	}
	n, err := gorgonia.ApplyOp(&view{of: c, index: i, id: t.b.nextID()}, t.node)
	if err != nil {
		return t.b.Fail(err)
	}
	return Tensor{n, t.b}
}
