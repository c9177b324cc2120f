package graph

import (
	"fmt"

	"gorgonia.org/gorgonia"
)

// Gradients adds the backward pass of loss, a scalar, with respect to every
// parameter. The gradients go to the region Grads, laid out as the parameters.
func (b *Builder) Gradients(loss Tensor) error {
	if b.err != nil {
		return b.err
	}
	wrt := make(gorgonia.Nodes, len(b.params))
	for i, p := range b.params {
		wrt[i] = p.node
	}
	b.seed = b.g.Constant(gorgonia.NewF32(1))
	grads, err := gorgonia.Grad(loss.node, wrt...)
	if err != nil {
		b.Fail(fmt.Errorf("backward pass: %w", err))
		return b.err
	}
	for i, p := range b.params {
		p.grad = grads[i]
	}
	return b.checkSums()
}

func (b *Builder) contribute(to, gradient *gorgonia.Node) {
	b.terms[to] = append(b.terms[to], gradient)
}

// isSum reports whether n is gorgonia's own sum of two gradients that meet. Its
// type is not exported.
func isSum(n *gorgonia.Node) bool {
	op := n.Op()
	return op != nil && op.Arity() == 2 && len(op.String()) > 0 && op.String()[0] == '+'
}

// children are a node's inputs, duplicates included, in order.
func (b *Builder) children(n *gorgonia.Node) []*gorgonia.Node {
	var list []*gorgonia.Node
	for it := b.g.From(n.ID()); it.Next(); {
		list = append(list, it.Node().(*gorgonia.Node))
	}
	return list
}

// sumTerms are the leaves of a tree of gorgonia's sums, left to right. stop
// says which nodes are leaves though they are sums themselves.
func (b *Builder) sumTerms(n *gorgonia.Node, stop map[*gorgonia.Node]bool) []*gorgonia.Node {
	if !isSum(n) || stop[n] {
		return []*gorgonia.Node{n}
	}
	var list []*gorgonia.Node
	for _, c := range b.children(n) {
		list = append(list, b.sumTerms(c, stop)...)
	}
	return list
}

// checkSums compares what gorgonia summed for each node with what the ops gave.
// gorgonia identifies its sums by a hash of 32 bits: two that collide would
// become one silently.
func (b *Builder) checkSums() error {
	for n, terms := range b.terms {
		d := n.Deriv()
		if d == nil {
			continue // nothing asked for this node's gradient
		}
		count := map[*gorgonia.Node]int{}
		stop := map[*gorgonia.Node]bool{}
		for _, t := range terms {
			count[t]++
			stop[t] = true
		}
		for _, t := range b.sumTerms(d, stop) {
			count[t]--
		}
		for t, c := range count {
			if c != 0 {
				b.Fail(fmt.Errorf("backward pass: gorgonia merged two gradients at %v (term %v): change the order of two layers", n, t))
				return b.err
			}
		}
	}
	return nil
}
