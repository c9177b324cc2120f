package graph

import (
	"fmt"
	"slices"
	"sort"
)

// effort is how much of a block the backward pass computes again, so that its
// tensors need not be kept from the forward pass (activation checkpointing, Chen et
// al., arXiv 1604.06174). The same kernels on the same inputs give the same bits.
type effort uint8

const (
	keepAll    effort = iota
	cheapAgain        // what moves memory and computes little: norms, gates, convolutions
	allAgain          // everything but what other blocks read: the residual stream
)

const (
	// flopsPerByte is the most work that an op does for a byte that it moves to count as
	// cheap. Norms, gates and convolutions are below it; a scan's is 8, and a product's
	// or attention's hundreds.
	flopsPerByte = 4
	// byteInFLOPs weighs the two limits of a machine against each other in an op's time.
	byteInFLOPs = 100
)

// LimitError is what Compile returns where the arena can't be as small as asked.
type LimitError struct {
	// Limit and Need are bytes; Need is what the arena takes when all blocks are
	// computed again.
	Limit, Need int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("graph: the tensors between kernels take %d bytes even when all blocks are computed again, more than the limit of %d", e.Need, e.Limit)
}

// recomputation is what decides which tensors are kept for the backward pass.
type recomputation struct {
	c     *compiler
	steps []pending
	// maker is the forward step that makes a storage.
	maker map[*storage]int
	// saved are the storages that backward steps read.
	saved map[*storage]bool
	// shared are the storages that outlive their block in any case: results, and what
	// another block reads.
	shared map[*storage]bool
}

func (c *compiler) newRecomputation() *recomputation {
	r := &recomputation{c: c, steps: c.steps, maker: map[*storage]int{}, saved: map[*storage]bool{}, shared: map[*storage]bool{}}
	for i, s := range r.steps {
		if s.backward {
			for _, v := range s.in {
				r.saved[v.st] = true
			}
			continue
		}
		for _, v := range s.in {
			if m, ok := r.maker[v.st]; ok && r.steps[m].block != s.block {
				r.shared[v.st] = true
			}
		}
		for _, v := range s.out {
			r.maker[v.st] = i
		}
	}
	for _, o := range c.b.out {
		r.shared[c.values[o.node].st] = true
	}
	return r
}

// droppable are the storages that need not be kept when each block makes its effort.
func (r *recomputation) droppable(efforts []effort) map[*storage]bool {
	drop := map[*storage]bool{}
	for _, s := range r.steps {
		if s.backward || s.block == 0 || efforts[s.block] == keepAll {
			continue
		}
		if efforts[s.block] == cheapAgain && !r.cheap(s, drop) {
			continue
		}
		for _, v := range s.out {
			if !r.shared[v.st] && v.st.region == Arena {
				drop[v.st] = true
			}
		}
	}
	return drop
}

// cheap reports whether a step does little, and reads only what is there anyway.
func (r *recomputation) cheap(s pending, drop map[*storage]bool) bool {
	if s.Spec.Cost == nil {
		return false
	}
	if cost := s.Spec.Cost(s.Dims); cost.FLOPs > flopsPerByte*cost.Bytes {
		return false
	}
	for _, v := range s.in {
		if _, made := r.maker[v.st]; made && !r.saved[v.st] && !drop[v.st] {
			return false
		}
	}
	return true
}

// rewrite is the list of steps in which the backward pass computes dropped storages
// again, each just before it is first read.
func (r *recomputation) rewrite(drop map[*storage]bool) []pending {
	var list []pending
	again := map[*storage]*storage{} // a dropped storage and its second making
	var at func(v *value) *value
	at = func(v *value) *value {
		if !drop[v.st] {
			return v
		}
		if again[v.st] == nil {
			s := r.steps[r.maker[v.st]]
			call := *s.call
			call.backward, call.again = true, true
			redo := pending{call: &call}
			for _, in := range s.in {
				redo.in = append(redo.in, at(in))
			}
			for _, out := range s.out {
				st := &storage{region: Arena, rows: out.st.rows, cols: out.st.cols, dtype: out.st.dtype}
				again[out.st] = st
				redo.out = append(redo.out, st.hold(out.shape, out.col))
			}
			list = append(list, redo)
		}
		return again[v.st].hold(v.shape, v.col)
	}
	for _, s := range r.steps {
		if s.backward {
			in := make([]*value, len(s.in))
			for i, v := range s.in {
				in[i] = at(v)
			}
			s.in = in
		}
		list = append(list, s)
	}
	return list
}

// upgrade is one block's step to a greater effort, and what a unit of work saves.
type upgrade struct {
	block  int
	effort effort
	gain   float64
}

// upgrades are all that could be done, the best first. Among equals the first blocks
// come first: the last ones are computed again while everything else is still kept.
func (r *recomputation) upgrades(blocks int) []upgrade {
	var list []upgrade
	for block := 1; block <= blocks; block++ {
		before := upgradeCost{}
		for _, e := range []effort{cheapAgain, allAgain} {
			cost := r.cost(block, blocks, e)
			if saved := cost.saved - before.saved; saved > 0 {
				list = append(list, upgrade{block, e, saved / max(cost.work-before.work, 1)})
				before = cost
			}
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].gain > list[j].gain })
	return list
}

type upgradeCost struct {
	saved float64 // units of 4 bytes
	work  float64 // FLOPs
}

func (r *recomputation) cost(block, blocks int, e effort) upgradeCost {
	efforts := make([]effort, blocks+1)
	efforts[block] = e
	drop := r.droppable(efforts)
	var c upgradeCost
	for st := range drop {
		if r.saved[st] {
			c.saved += float64(st.size())
		}
	}
	for _, s := range r.rewrite(drop) {
		if s.again && s.Spec.Cost != nil {
			cost := s.Spec.Cost(s.Dims)
			c.work += cost.FLOPs + byteInFLOPs*cost.Bytes
		}
	}
	return c
}

// fit lays out the arena within limit bytes, with as little computed again as that
// takes; 0 is no limit. It returns the arena's length.
func (c *compiler) fit(limit int64) (int, error) {
	steps, total, err := c.laidOut(c.steps)
	if err != nil || limit <= 0 || 4*int64(total) <= limit {
		c.steps = steps
		return total, err
	}
	r := c.newRecomputation()
	list := r.upgrades(c.b.blocks)
	try := func(n int) ([]pending, int, error) {
		efforts := make([]effort, c.b.blocks+1)
		for _, u := range list[:n] {
			efforts[u.block] = max(efforts[u.block], u.effort)
		}
		return c.laidOut(r.rewrite(r.droppable(efforts)))
	}
	n := sort.Search(len(list), func(n int) bool {
		_, total, err := try(n)
		return err != nil || 4*int64(total) <= limit
	})
	if steps, total, err = try(n); err != nil {
		return 0, err
	}
	if 4*int64(total) > limit {
		return 0, &LimitError{Limit: limit, Need: 4 * int64(total)}
	}
	c.steps = slices.Clip(steps)
	return total, nil
}

// laidOut is the steps that are run for a list of them, with all in its place, and the
// arena's length.
func (c *compiler) laidOut(steps []pending) ([]pending, int, error) {
	var err error
	switch {
	case c.sharder != nil:
		steps, err = c.sharder.rewrite(steps)
	case c.b.reduction != nil:
		steps, err = c.b.reduction.rewrite(steps)
	}
	if err != nil {
		return nil, 0, err
	}
	return steps, c.layout(steps), nil
}
