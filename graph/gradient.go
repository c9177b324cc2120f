package graph

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
)

// Gradients adds the backward pass of loss, a scalar, with respect to every parameter; the loss
// must depend on each of them. The gradients are in region Grads, with the layout of the
// parameters.
func (b *Builder) Gradients(loss Tensor) error {
	if b.err == nil {
		if err := b.gradients(loss); err != nil {
			b.Fail(fmt.Errorf("backward pass: %w", err))
		}
	}
	return b.err
}

func (b *Builder) gradients(loss Tensor) error {
	switch {
	case b.seed != nil:
		return errors.New("there is one already; a graph has one loss")
	case !loss.Valid():
		return errors.New("the loss is missing")
	case len(loss.Shape()) != 0 || loss.DType() != Float32:
		return fmt.Errorf("the loss must be a float32 scalar, is %v %v", loss.DType(), loss.Shape())
	case len(b.params) == 0:
		return errors.New("the graph has no parameters")
	}
	reached := b.reached(loss.node)
	wrt := make(gorgonia.Nodes, len(b.params))
	for i, p := range b.params {
		if !reached[p.node] {
			return fmt.Errorf("the loss does not depend on parameter %s", p.Name)
		}
		wrt[i] = p.node
	}
	b.seed = b.g.Constant(gorgonia.NewF32(1))
	grads, err := gorgonia.Grad(loss.node, wrt...)
	if b.err != nil {
		return b.err // an op's own message, which gorgonia wraps in many lines
	}
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return errors.New(line)
	}
	for i, p := range b.params {
		p.grad = grads[i]
	}
	return b.findSums()
}

// reached are the nodes that n is computed from along differentiable paths.
func (b *Builder) reached(n *gorgonia.Node) map[*gorgonia.Node]bool {
	seen := map[*gorgonia.Node]bool{n: true}
	for stack := []*gorgonia.Node{n}; len(stack) > 0; {
		n, stack = stack[len(stack)-1], stack[:len(stack)-1]
		op, ok := n.Op().(gorgonia.SDOp)
		if !ok {
			continue
		}
		children := b.children(n)
		for i, wanted := range op.DiffWRT(len(children)) {
			if wanted && !seen[children[i]] {
				seen[children[i]] = true
				stack = append(stack, children[i])
			}
		}
	}
	return seen
}

func (b *Builder) contribute(to, gradient *gorgonia.Node) {
	b.terms[to] = append(b.terms[to], gradient)
}

// findSums records the terms of each sum of gradients. gorgonia adds the gradients of a node in
// pairs, with nodes that it identifies by a 32-bit hash: if two hashes collide, two nodes become
// one. So the terms recorded here count, not how gorgonia connected them.
func (b *Builder) findSums() error {
	for n, terms := range b.terms {
		d := n.Deriv()
		if d == nil || len(terms) == 1 {
			continue // not requested, or d is the term itself
		}
		if other, ok := b.sums[d]; ok && !slices.Equal(other, terms) {
			return fmt.Errorf("gorgonia merged the gradient of %v with another: change the order of two layers", n)
		}
		b.sums[d] = terms
	}
	return nil
}

// children are the nodes that n is computed from, in order, including duplicates.
func (b *Builder) children(n *gorgonia.Node) []*gorgonia.Node {
	if terms, ok := b.sums[n]; ok {
		return terms
	}
	var list []*gorgonia.Node
	for it := b.g.From(n.ID()); it.Next(); {
		list = append(list, it.Node().(*gorgonia.Node))
	}
	return list
}
