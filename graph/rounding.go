package graph

import "slices"

// asWanted is v in the type that input i of op takes it in: rounded for a matrix
// product in mixed precision, where v is not bfloat16 already.
func (c *compiler) asWanted(op *call, i int, v *value) (*value, error) {
	o := op.In[i]
	if c.b.round == nil || v.st.dtype != Float32 {
		return v, nil
	}
	if v.st.region == Params {
		if o.Kind == Precise || len(v.shape) < 2 {
			return v, nil
		}
		// The optimizer keeps a rounded copy of all weights.
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
		res, err := c.b.round.Resolve([]Shape{v.shape})
		if err != nil {
			return nil, err
		}
		round := &call{Resolved: res, path: op.path, backward: op.backward, block: op.block}
		c.steps = append(c.steps, pending{call: round, in: []*value{v}, out: []*value{r}})
	}
	if v.st.region != States { // a state may change between two readers
		c.rounded[v] = r
	}
	return r, nil
}

// roundAtOnce lets the op that makes v make r of it as well, where it can.
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
