package graph

import "slices"

// narrow replaces a float32 output and its rounded copy by one Float24, where all readers of the
// float32 output accept that. These are gradients of the residual stream, which norms read, and
// which products read rounded. It is applied to the final list of steps in mixed precision.
func (c *compiler) narrow(steps []pending) ([]pending, error) {
	if c.b.round == nil {
		return steps, nil
	}
	list := slices.Clone(steps)
	to := map[*storage]*storage{}
	for i, s := range steps {
		if !c.canNarrow(s, steps) {
			continue
		}
		dx, rounded := s.out[0].st, s.out[len(s.out)-1].st
		res, err := s.Spec.Unrounded().resolveOf(s.in)
		if err != nil {
			return nil, err
		}
		list[i].replace(res)
		list[i].out = s.out[:len(s.out)-1]
		to[dx] = &storage{region: Arena, rows: dx.rows, cols: dx.cols, dtype: Float24}
		to[rounded] = &storage{region: Arena, rows: dx.rows, cols: dx.cols, dtype: BFloat16, inside: to[dx]}
	}
	for i := range list {
		list[i].in, list[i].out = elsewhere(list[i].in, to), elsewhere(list[i].out, to)
	}
	return list, nil
}

// canNarrow reports whether the first and last outputs of a step can be one Float24.
func (c *compiler) canNarrow(s pending, steps []pending) bool {
	if s.Spec.Unrounded == nil || s.precise {
		return false
	}
	dx, rounded := s.out[0], s.out[len(s.out)-1]
	for _, v := range []*value{dx, rounded} {
		if v.st.region != Arena || !v.whole() || v.st.inside != nil || v.st.pad != 0 || c.isResult(v.st) {
			return false
		}
	}
	if dx.st.dtype != Float32 || rounded.st.dtype != BFloat16 || dx.st.cols%rowAlign != 0 {
		return false
	}
	for _, other := range steps {
		for k, in := range other.in {
			if in.st == dx.st && (other.precise || !slices.Contains(other.Spec.Narrow, k)) {
				return false
			}
		}
	}
	return true
}

func (c *compiler) isResult(st *storage) bool {
	return slices.ContainsFunc(c.b.out, func(o output) bool { return c.values[o.node].st == st })
}

// elsewhere returns the values in the storages that replace theirs.
func elsewhere(list []*value, to map[*storage]*storage) []*value {
	list = slices.Clone(list)
	for i, v := range list {
		if st := to[v.st]; st != nil {
			list[i] = &value{shape: v.shape, st: st, col: v.col}
		}
	}
	return list
}
