package graph

import "slices"

// asWanted is v in the type that input i of op needs. In mixed precision v is rounded for a matrix
// product unless it is bfloat16 already, and widened for a float32 block.
func (c *compiler) asWanted(op *call, i int, v *value) (*value, error) {
	o := op.In[i]
	switch {
	case op.precise && v.st.dtype == BFloat16:
		return c.widened(op, v)
	case c.b.round == nil || op.precise || v.st.dtype != Float32:
		return v, nil
	}
	if v.st.region == Params {
		if o.Kind == Precise || len(v.shape) < 2 {
			return v, nil
		}
		// The optimizer maintains a rounded copy of all weights.
		shadow := &storage{region: Shadow, offset: v.st.offset / 2, rows: v.st.rows, cols: v.st.cols, dtype: BFloat16}
		w := shadow.hold(v.shape, v.col)
		if o.Kind != Factor || !o.Strided {
			return w, nil
		}
		return c.paddedWeight(op, w)
	}
	if o.Kind != Factor {
		return v, nil
	}
	if r := c.rounded[v]; r != nil {
		return r, nil
	}
	r := newStorage(Arena, v.shape, BFloat16).hold(v.shape, 0)
	if done, err := c.roundAtOnce(v, r); err != nil {
		return nil, err
	} else if !done {
		if err := c.convert(op, v, r); err != nil {
			return nil, err
		}
	}
	if v.st.region != States { // a state may change between two readers
		c.rounded[v] = r
	}
	return r, nil
}

// widened is a float32 copy of v, shared by all readers.
func (c *compiler) widened(op *call, v *value) (*value, error) {
	if w := c.wide[v]; w != nil {
		return w, nil
	}
	w := newStorage(Arena, v.shape, Float32).hold(v.shape, 0)
	c.wide[v] = w
	return w, c.convert(op, v, w)
}

// convert adds a step, as part of op's layer, that converts a tensor to another type.
func (c *compiler) convert(op *call, from, to *value) error {
	res, err := c.b.round.Resolve([]Shape{from.shape})
	if err != nil {
		return err
	}
	like := &call{Resolved: res, path: op.path, precise: op.precise, backward: op.backward, block: op.block}
	c.steps = append(c.steps, pending{call: like, in: []*value{from}, out: []*value{to}})
	return nil
}

// roundAtOnce lets the op that computes v also return its rounded copy r, where it can.
func (c *compiler) roundAtOnce(v, r *value) (bool, error) {
	i := slices.IndexFunc(c.steps, func(s pending) bool { return len(s.out) > 0 && s.out[0] == v })
	if i < 0 || c.steps[i].Spec.Rounded == nil {
		return false, nil
	}
	s := &c.steps[i]
	res, err := s.Spec.Rounded().Resolve(s.shapes())
	if err != nil {
		return false, err
	}
	s.replace(res)
	s.out = append(slices.Clone(s.out), r)
	return true, nil
}
