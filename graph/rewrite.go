package graph

import "slices"

// rewriting is a list of steps in which the backward pass recomputes dropped storages.
type rewriting struct {
	*recomputation
	drop map[*storage]bool
	// elsewhere is where a storage was moved: for those that are kept, into another storage; for
	// those that are dropped, to where they are recomputed.
	elsewhere map[*storage]*value
	early     map[int]bool     // steps that were moved forward in the list
	made      map[*storage]int // the last step that writes a storage
	last      map[*storage]int // the last step that reads it, or that reads what is recomputed from it
	list      []pending
}

// rewrite is the list of steps in which the backward pass recomputes dropped storages, each just
// before it is first read.
func (r *recomputation) rewrite(drop map[*storage]bool) []pending {
	w := &rewriting{recomputation: r, drop: drop, elsewhere: map[*storage]*value{}, early: map[int]bool{}}
	w.lifetimes()
	w.keepOver()
	for i, s := range r.steps {
		if w.early[i] {
			continue
		}
		if s.backward {
			s.in = w.inputs(s.in, i)
		} else {
			s.in, s.out = w.placed(s.in), w.placed(s.out)
		}
		w.list = append(w.list, s)
	}
	return w.list
}

func (w *rewriting) lifetimes() {
	w.made, w.last = map[*storage]int{}, map[*storage]int{}
	for i, s := range w.steps {
		for _, v := range s.out {
			w.made[v.st] = i
		}
		for _, v := range s.in {
			w.last[v.st] = i
		}
	}
	for i, s := range slices.Backward(w.steps) {
		if s.backward {
			continue
		}
		for _, out := range s.out {
			if !w.drop[out.st] || w.maker[out.st] != i {
				continue
			}
			for _, in := range s.in {
				w.last[in.st] = max(w.last[in.st], w.last[out.st])
			}
		}
	}
}

// keepOver places a tensor that is kept for a backward op where that op's output will be, if the
// output may overwrite it.
func (w *rewriting) keepOver() {
	for j, s := range w.steps {
		if !s.backward {
			continue
		}
		for k, over := range s.Spec.Over {
			in := s.in[over]
			if _, made := w.maker[in.st]; made && !w.drop[in.st] && w.canLieOver(j, k) {
				w.elsewhere[in.st] = &value{st: s.out[k].st, col: s.out[k].col}
			}
		}
	}
}

// canLieOver reports whether output k of backward step j can use the memory of the input that its
// Spec.Over names, kept or recomputed.
func (w *rewriting) canLieOver(j, k int) bool {
	in, out := w.steps[j].in[w.steps[j].Spec.Over[k]], w.steps[j].out[k]
	return w.last[in.st] == j && !w.results[in.st] && in.whole() && in.st.region == Arena && out.st.region == Arena && alike(in, out) && !w.dense[in.st]
}

// alike reports whether two tensors, or columns, have rows of the same layout.
func alike(a, b *value) bool {
	return a.st.dtype == b.st.dtype && a.st.rows == b.st.rows && a.shape.Cols() == b.shape.Cols() && a.st.pad == 0 && b.st.pad == 0
}

// placed are values of the forward pass at their final places.
func (w *rewriting) placed(list []*value) []*value {
	list = slices.Clone(list)
	for i, v := range list {
		if to := w.elsewhere[v.st]; to != nil && !w.drop[v.st] {
			list[i] = &value{shape: v.shape, st: to.st, col: to.col + v.col}
		}
	}
	return list
}

// inputs are the values that step i, or a step inserted before it, reads.
func (w *rewriting) inputs(in []*value, i int) []*value {
	list := make([]*value, len(in))
	for k, v := range in {
		list[k] = w.at(v, i)
	}
	return list
}

// at is v as step i reads it; it is recomputed first if needed.
func (w *rewriting) at(v *value, i int) *value {
	if w.drop[v.st] && w.elsewhere[v.st] == nil && !w.fused(v, i) {
		s := w.steps[w.maker[v.st]]
		call := *s.call
		call.backward, call.again = true, true
		redo := pending{call: &call, in: w.inputs(s.in, i)}
		for _, out := range s.out {
			redo.out = append(redo.out, w.second(out))
		}
		w.list = append(w.list, redo)
	}
	to := w.elsewhere[v.st]
	if to == nil {
		return v
	}
	return &value{shape: v.shape, st: to.st, col: to.col + v.col}
}

// second is where out is recomputed: in the place of an output of the backward op that reads it
// last, if that may overwrite it, and otherwise in a storage of its own.
func (w *rewriting) second(out *value) *value {
	a := &value{shape: out.shape, st: &storage{region: Arena, rows: out.st.rows, cols: out.st.cols, pad: out.st.pad, dtype: out.st.dtype}}
	if j := w.last[out.st]; w.steps[j].backward {
		for k, over := range w.steps[j].Spec.Over {
			if to := w.steps[j].out[k]; w.steps[j].in[over].st == out.st && w.canLieOver(j, k) {
				a.st, a.col = to.st, to.col
			}
		}
	}
	w.elsewhere[out.st] = a
	return a
}

// fused lets the backward op with the same inputs as the forward op of v recompute v, too, before
// step i, where possible.
func (w *rewriting) fused(v *value, i int) bool {
	made := w.steps[w.maker[v.st]]
	if len(made.out) != 1 {
		return false
	}
	for j := i + 1; j < len(w.steps); j++ {
		s := w.steps[j]
		if s.Spec.Again == nil || s.Spec.Forward != made.Spec.Name || !reads(s, made) || !w.movable(j, i, made) {
			continue
		}
		res, err := s.Spec.Again().Resolve(s.shapes())
		if err != nil {
			return false
		}
		s.replace(res)
		s.remakes = made.Spec.Name
		to := w.over(s, j, made.out[0])
		if to == nil {
			to = w.second(made.out[0])
		}
		w.elsewhere[v.st] = to
		s.in, s.out = w.inputs(s.in, i), append(slices.Clone(s.out), to)
		w.list = append(w.list, s)
		w.early[j] = true
		return true
	}
	return false
}

// over is the input of step j, now s, whose memory its last output v can reuse; nil for none.
func (w *rewriting) over(s pending, j int, v *value) *value {
	in := s.in[s.Spec.Over[len(s.Spec.Over)-1]]
	if w.elsewhere[in.st] != nil || w.last[in.st] != j || w.results[in.st] || in.st.region != Arena || !in.whole() || !alike(in, v) {
		return nil
	}
	return &value{shape: v.shape, st: in.st}
}

// reads reports whether a backward step's first inputs are those of a forward step.
func reads(s, forward pending) bool {
	if !s.backward || len(s.in) <= len(forward.in) {
		return false
	}
	for k, v := range forward.in {
		if s.in[k].st != v.st || s.in[k].col != v.col {
			return false
		}
	}
	return true
}

// movable reports whether step j can run before step i, in place of a step that would be repeated:
// everything that it reads exists by then, and nothing in between reads it, too.
func (w *rewriting) movable(j, i int, made pending) bool {
	own := map[*storage]bool{}
	for _, v := range w.steps[j].in {
		if m, ok := w.made[v.st]; ok && m >= i {
			return false
		}
		own[v.st] = true
	}
	for _, s := range w.steps[:i] { // what is recomputed reads it as well
		again := !s.backward && s.call != made.call && slices.ContainsFunc(s.in, func(v *value) bool { return own[v.st] })
		for _, out := range s.out {
			own[out.st] = own[out.st] || again && w.drop[out.st]
		}
	}
	return !slices.ContainsFunc(w.steps[i:j], func(s pending) bool {
		return slices.ContainsFunc(s.in, func(v *value) bool { return own[v.st] })
	})
}
