package graph

import "slices"

// FewRows is the largest number of rows that a plan treats like decoding. A product with so few
// rows takes as long as reading its weight, so the ops around it matter: a plan fuses the norm
// before it and the gate after it into the product.
const FewRows = 16

// joinCarried does this in mixed precision, where weights are contiguous in memory, and in the
// stateful form, which has no backward pass. For any number of rows it joins products that share an
// input.
func (c *compiler) joinCarried() error {
	if c.b.round == nil || c.b.carry == nil {
		return nil
	}
	if err := c.stack(); err != nil {
		return err
	}
	if err := c.takeInNorms(); err != nil {
		return err
	}
	if err := c.takeInGates(); err != nil {
		return err
	}
	if err := c.takeInConvolutions(); err != nil {
		return err
	}
	return c.takeInProjections()
}

// readsWeight reports whether a product has few rows and a bfloat16 weight.
func (s *pending) readsWeight() bool {
	return s.in[0].shape.Rows() <= FewRows && s.in[1].st.dtype == BFloat16
}

// stack joins products of the same input whose weights are contiguous: into one product with one
// weight that has the rows of both, and one result that has the columns of both.
func (c *compiler) stack() error {
	for i := 0; i < len(c.steps); i++ {
		s := &c.steps[i]
		if !s.Spec.Stacks || s.in[1].st.dtype != BFloat16 {
			continue
		}
		j := slices.IndexFunc(c.steps[i+1:], func(o pending) bool {
			return o.Spec.Name == s.Spec.Name && o.in[0] == s.in[0] && behind(s.in[1], o.in[1])
		}) + i + 1
		if j == i || !c.canJoin(s.out[0], c.steps[j].out[0]) {
			continue
		}
		w, y := below(s.in[1], c.steps[j].in[1]), beside(s.out[0], c.steps[j].out[0])
		res, err := s.Spec.Resolve([]Shape{s.in[0].shape, w.shape})
		if err != nil {
			return err
		}
		s.replace(res)
		s.in, s.out = []*value{s.in[0], w}, []*value{y}
		c.steps = slices.Delete(c.steps, j, j+1)
		i-- // there may be a third
	}
	return nil
}

// maker is the step whose output 0 is the entire tensor; nil for none.
func (c *compiler) maker(st *storage) *pending {
	for i := range c.steps {
		if s := &c.steps[i]; len(s.out) > 0 && s.out[0].st == st && s.out[0].whole() {
			return s
		}
	}
	return nil
}

// takeInNorms fuses norms into the products that read them, where each thread block normalizes the
// entire input, and removes norms that nothing reads any more.
func (c *compiler) takeInNorms() error {
	var norms []*storage
	for i := range c.steps {
		s := &c.steps[i]
		if s.Spec.Normed == nil || !s.readsWeight() {
			continue
		}
		norm := c.maker(s.in[0].st)
		if norm == nil || norm.Spec.Norm == nil {
			continue
		}
		in := slices.Concat(norm.in, s.in[1:])
		res, err := s.Spec.Normed(*norm.Spec.Norm).resolveOf(in)
		if err != nil {
			return err
		}
		if res == nil {
			continue
		}
		norms = append(norms, s.in[0].st)
		s.replace(res)
		s.in = in
	}
	c.steps = slices.DeleteFunc(c.steps, func(s pending) bool {
		return s.Spec.Norm != nil && slices.Contains(norms, s.out[0].st) &&
			!slices.ContainsFunc(s.out, func(v *value) bool { return c.uses(v) > 0 })
	})
	return nil
}

// takeInGates fuses the product silu(gate) up into the product that computes gate and up side by
// side.
func (c *compiler) takeInGates() error {
	for i := 0; i < len(c.steps); i++ {
		s := c.steps[i]
		if !s.Spec.Gates {
			continue
		}
		gate, up := s.in[0], s.in[1]
		of := gate.st
		if up.st != of || gate.col != 0 || up.col != gate.shape.Cols() || of.cols != 2*up.col || c.uses(gate) != 2 {
			continue
		}
		product := c.maker(of)
		if product == nil || product.Spec.Gated == nil {
			continue
		}
		res, err := product.Spec.Gated().Resolve(product.shapes())
		if err != nil {
			return err
		}
		product.replace(res)
		product.out = s.out
		c.steps = slices.Delete(c.steps, i, i+1)
		i--
	}
	return nil
}

// takeInConvolutions fuses a convolution into the product whose first columns it reads, if all
// other readers use columns after these: the convolution's result takes their place.
func (c *compiler) takeInConvolutions() error {
	for i := 0; i < len(c.steps); i++ {
		s := c.steps[i]
		if !s.Spec.Convolves || s.in[0].col != 0 {
			continue
		}
		u, v := s.in[0], s.out[0]
		product := c.maker(u.st)
		if product == nil || product.Spec.Convolved == nil || v.st.region != Arena || v.st.dtype != u.st.dtype || !v.whole() ||
			c.readsBeside(u) || !c.mayLieApart(v) {
			continue
		}
		in := slices.Concat(product.in, s.in[1:])
		res, err := product.Spec.Convolved(s.Spec).resolveOf(in)
		if err != nil {
			return err
		}
		if res == nil {
			continue
		}
		product.replace(res)
		product.in = in
		for _, w := range v.st.values {
			u.st.values = append(u.st.values, w)
			w.st = u.st
		}
		c.steps = slices.Delete(c.steps, i, i+1)
		i--
	}
	return nil
}

// readsBeside reports whether some columns have any reader but one.
func (c *compiler) readsBeside(v *value) bool {
	readers := 0
	for _, s := range c.steps {
		for _, in := range s.in {
			if in.st == v.st && in.col < v.col+v.shape.Cols() && v.col < in.col+in.shape.Cols() {
				readers++
			}
		}
	}
	return readers != 1 || slices.ContainsFunc(c.b.out, func(o output) bool { return c.values[o.node].st == v.st })
}

// takeInProjections fuses a product into the op that reads it, if that supports it and nothing else
// reads the product.
func (c *compiler) takeInProjections() error {
	for i := 0; i < len(c.steps); i++ {
		s := &c.steps[i]
		if s.Spec.Projected == nil || c.uses(s.in[1]) != 1 {
			continue
		}
		j := slices.IndexFunc(c.steps, func(p pending) bool {
			return p.Spec.Stacks && p.readsWeight() && p.out[0].st == s.in[1].st && p.out[0].whole()
		})
		if j < 0 {
			continue
		}
		in := slices.Concat(s.in[:1], c.steps[j].in, s.in[2:])
		res, err := s.Spec.Projected().resolveOf(in)
		if err != nil {
			return err
		}
		if res == nil {
			continue
		}
		s.replace(res)
		s.in = in
		c.steps = slices.Delete(c.steps, j, j+1)
		i--
	}
	return nil
}

// resolveOf is Resolve with the inputs' shapes; nil if the op does not support them.
func (s *Spec) resolveOf(in []*value) (*Resolved, error) {
	shapes := make([]Shape, len(in))
	for k, v := range in {
		shapes[k] = v.shape
	}
	res, err := s.Resolve(shapes)
	if err == nil && s.Takes != nil && !s.Takes(res.Dims) {
		return nil, nil
	}
	return res, err
}
