package graph

import "slices"

// merge replaces two matrix products whose outputs are summed by one: a b + c d = [a c] [b; d]. It
// does so in mixed precision, where weights are contiguous in memory and gradients can be placed
// side by side: the gradients of the common input of gate and up, or of q, k and v, are then one
// product with a longer K, without a sum that is rounded in between.
func (c *compiler) merge() error {
	if c.b.round == nil {
		return nil
	}
	for i := 0; i < len(c.steps); i++ {
		s := &c.steps[i]
		if s.Spec.Merged == nil {
			continue
		}
		op, z := s.Spec.Merged(), s.in[len(s.in)-1]
		j := slices.IndexFunc(c.steps[:i], func(o pending) bool { return len(o.out) == 1 && o.out[0] == z && o.Spec.Name == op.Name })
		if j < 0 || c.uses(z) != 1 || z.st.region != Arena || !z.whole() {
			continue
		}
		first, second := c.steps[j].in, s.in
		if second[1].st.offset < first[1].st.offset {
			first, second = second, first
		}
		if !behind(first[1], second[1]) || !c.canJoin(first[0], second[0]) {
			continue
		}
		x, w := beside(first[0], second[0]), below(first[1], second[1])
		res, err := op.Resolve([]Shape{x.shape, w.shape})
		if err != nil {
			return err
		}
		s.replace(res)
		s.in = []*value{x, w}
		c.steps = slices.Delete(c.steps, j, j+1)
		i--
	}
	return nil
}

// uses counts the steps' inputs, the results and the gradients of parameters that are in v's storage.
func (c *compiler) uses(v *value) int { return c.usesIn(c.steps, v.st) }

// usesIn is uses for a given list of steps.
func (c *compiler) usesIn(steps []pending, st *storage) (n int) {
	for _, s := range steps {
		for _, v := range s.in {
			if v.st == st {
				n++
			}
		}
	}
	for _, o := range c.b.out {
		if c.values[o.node].st == st {
			n++
		}
	}
	for _, p := range c.b.params {
		if v := c.values[p.grad]; v != nil && v.st == st {
			n++
		}
	}
	return n
}

// behind reports whether b's rows follow a's in memory, as rows of one matrix.
func behind(a, b *value) bool {
	return a.st.region == b.st.region && a.st.region != Arena && a.st.dtype == b.st.dtype && a.whole() && b.whole() && a.st.cols == b.st.cols &&
		4*a.st.offset+a.st.rows*a.st.cols*a.st.dtype.Size() == 4*b.st.offset
}

func below(a, b *value) *value {
	st := &storage{region: a.st.region, offset: a.st.offset, rows: a.st.rows + b.st.rows, cols: a.st.cols, dtype: a.st.dtype}
	return st.hold(Shape{st.rows, st.cols}, 0)
}

// canJoin reports whether two tensors can become columns of one: all ops that read or write them
// accept strided rows, and their rows need no padding.
func (c *compiler) canJoin(a, b *value) bool {
	if a.st == b.st || a.st.region != Arena || b.st.region != Arena || a.st.dtype != b.st.dtype || !a.whole() || !b.whole() || a.st.rows != b.st.rows ||
		padding(a.st.cols+b.st.cols) > 0 {
		return false
	}
	return c.mayLieApart(a) && c.mayLieApart(b)
}

// mayLieApart reports whether all ops that read or write a tensor accept strided rows.
func (c *compiler) mayLieApart(v *value) bool {
	for _, o := range c.b.out {
		if c.values[o.node].st == v.st {
			return false
		}
	}
	for _, s := range c.steps {
		for k, in := range s.in {
			if in.st == v.st && !s.In[k].Strided {
				return false
			}
		}
		for k, out := range s.out {
			if out.st == v.st && !s.Out[k].Strided {
				return false
			}
		}
	}
	return true
}

// beside makes a and b columns of one tensor.
func beside(a, b *value) *value {
	shape := slices.Clone(a.shape)
	shape[len(shape)-1] += b.shape.Cols()
	whole := newStorage(Arena, shape, a.st.dtype)
	for _, part := range []struct {
		st   *storage
		from int
	}{{a.st, 0}, {b.st, a.shape.Cols()}} {
		for _, v := range part.st.values {
			whole.values = append(whole.values, v)
			v.st, v.col = whole, v.col+part.from
		}
	}
	return whole.hold(shape, 0)
}
