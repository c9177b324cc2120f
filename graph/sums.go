package graph

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// accumulate adds p's gradient v to the contents of region Grads, and returns the sum: within the op
// that computes v if nothing else reads v, and otherwise right after it.
func (c *compiler) accumulate(p *Param, v *value) (*value, error) {
	if v == nil {
		return nil, fmt.Errorf("graph: the gradient of %s is no tensor", p.Name)
	}
	at := newStorage(Grads, p.Shape, Float32)
	at.offset = c.values[p.node].st.offset
	sum := at.hold(p.Shape, 0)
	last := &c.steps[len(c.steps)-1]
	if len(last.out) > 0 && last.out[0] == v && last.Spec.Added != nil && c.readers(p.grad) == 0 {
		return v, c.addTo(last, sum)
	}
	r, err := c.b.add(len(p.Shape)).Resolve([]Shape{p.Shape, p.Shape})
	if err != nil {
		return nil, err
	}
	out, err := c.step(nil, &call{Resolved: r, path: pathOf(p.grad), backward: true}, []*value{sum, v})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// residual fuses a sum of the forward pass into the op that computes the later of its two terms.
// This saves a pass over the stream, and in mixed precision the term is never rounded. nil if it
// can't.
func (c *compiler) residual(n *gorgonia.Node, op *call, in []*value) (*value, error) {
	if op.backward || op.Spec.Name != c.b.add(1).Name {
		return nil, nil
	}
	terms := c.b.children(n)
	return c.addInto(in[0], in[1], terms[0], terms[1])
}

// sum adds the gradients of a tensor, left to right. Gradients of its columns are joined.
func (c *compiler) sum(n *gorgonia.Node, terms []*gorgonia.Node) (*value, error) {
	var list []*value
	var of []*gorgonia.Node // the nodes whose values they are
	var parts []*gorgonia.Node
	joined := 0 // the index of the joined columns in list
	for _, t := range terms {
		if !c.parts[t] {
			list, of = append(list, c.values[t]), append(of, t)
			continue
		}
		if parts == nil {
			joined = len(list)
			list, of = append(list, nil), append(of, nil)
		}
		parts = append(parts, t)
	}
	shape := Shape(n.Shape())
	if parts != nil {
		v, err := c.join(shape, parts)
		if err != nil {
			return nil, err
		}
		list[joined] = v
	}
	total, term := list[0], of[0]
	for i, v := range list[1:] {
		fused, err := c.addInto(total, v, term, of[i+1])
		if err != nil {
			return nil, err
		}
		term = nil
		if fused != nil {
			total = fused
			continue
		}
		r, err := c.b.add(len(shape)).Resolve([]Shape{shape, shape})
		if err != nil {
			return nil, err
		}
		var whose *gorgonia.Node
		if i == len(list)-2 {
			whose = n
		}
		out, err := c.step(whose, &call{Resolved: r, path: pathOf(n), backward: true}, []*value{total, v})
		if err != nil {
			return nil, err
		}
		total = out[0]
	}
	return total, nil
}

// addInto fuses the sum of two terms into the op that computes the later one, and returns the sum;
// nil if that op does not support it, or if something else reads its output. a and b are the terms'
// nodes, nil for a value that is not output 0 of a single op.
func (c *compiler) addInto(x, y *value, a, b *gorgonia.Node) (*value, error) {
	for i := len(c.steps) - 1; i >= 0; i-- {
		s := &c.steps[i]
		if len(s.out) == 0 || s.out[0] != x && s.out[0] != y {
			continue
		}
		other, node := y, a
		if s.out[0] == y {
			other, node = x, b
		}
		if node == nil || s.Spec.Added == nil || x == y || c.readers(node) != 1 || c.stays(node) || !c.known(other, i) || s.precise && other.st.dtype == BFloat16 {
			return nil, nil
		}
		if err := c.addTo(s, other); err != nil {
			return nil, err
		}
		return s.out[0], nil
	}
	return nil, nil
}

// addTo makes a step add z to its output 0.
func (c *compiler) addTo(s *pending, z *value) error {
	res, err := s.Spec.Added().Resolve(append(s.shapes(), z.shape))
	if err != nil {
		return err
	}
	s.replace(res)
	s.in = append(slices.Clone(s.in), z)
	if z.st.dtype == Float32 {
		s.out[0].st.dtype = Float32
	}
	return nil
}

// readers counts the readers of a node's output 0.
func (c *compiler) readers(n *gorgonia.Node) int {
	count := 0
	for it := c.b.g.To(n.ID()); it.Next(); {
		if _, ok := it.Node().(*gorgonia.Node).Op().(*view); !ok {
			count++
		}
	}
	return count
}

// stays reports whether a node is a result or the gradient of a parameter, which its value must
// remain.
func (c *compiler) stays(n *gorgonia.Node) bool {
	return slices.ContainsFunc(c.b.out, func(o output) bool { return o.node == n }) ||
		slices.ContainsFunc(c.b.params, func(p *Param) bool { return p.grad == n })
}

// known reports whether v is computed before a step.
func (c *compiler) known(v *value, step int) bool {
	if v.st.region != Arena {
		return true
	}
	for _, s := range c.steps[:step] {
		if slices.Contains(s.out, v) {
			return true
		}
	}
	return false
}

// pathOf is the path of the layer that computed the tensor whose gradient is sum.
func pathOf(sum *gorgonia.Node) string {
	if of := sum.DerivOf(); len(of) > 0 {
		if c, ok := of[0].Op().(*call); ok {
			return c.path
		}
	}
	return ""
}

// join places the gradients of x's columns where x's gradient has these columns, so that joining
// them costs nothing.
func (c *compiler) join(shape Shape, parts []*gorgonia.Node) (*value, error) {
	whole := newStorage(Arena, shape, Float32)
	used := make([]bool, whole.cols)
	for i, t := range parts {
		op := t.Op().(*place)
		v := c.values[c.b.children(t)[0]]
		if v == nil || v.st.region != Arena || !v.whole() {
			return nil, fmt.Errorf("columns: the gradient of columns %d to %d of %v is shared with another tensor's; copy one of them", op.from, op.from+op.in.Cols(), shape)
		}
		if i == 0 {
			whole.dtype = v.st.dtype
		} else if v.st.dtype != whole.dtype {
			return nil, fmt.Errorf("columns: the gradients of %v's columns are %v and %v", shape, whole.dtype, v.st.dtype)
		}
		for j := range op.in.Cols() {
			if used[op.from+j] {
				return nil, fmt.Errorf("columns: column %d of %v is used twice", op.from+j, shape)
			}
			used[op.from+j] = true
		}
		for _, w := range v.st.values {
			whole.values = append(whole.values, w)
			w.st, w.col = whole, w.col+op.from
		}
	}
	if j := slices.Index(used, false); j >= 0 {
		return nil, fmt.Errorf("columns: column %d of %v is not used, so its gradient is not known", j, shape)
	}
	return whole.hold(shape, 0), nil
}
