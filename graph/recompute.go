package graph

import (
	"fmt"
	"maps"
	"slices"
	"sort"
)

// Weights in the estimate of an op's time, in FLOPs of matrix products: of moving a byte and, where
// products use tensor cores, of a floating-point operation outside of matrix products.
const (
	byteInFLOPs     = 100
	scalarInProduct = 20
)

// LimitError is what Compile returns if the arena can't be as small as requested.
type LimitError struct {
	// Limit and Need are bytes; Need is the size of the arena when everything possible is
	// recomputed.
	Limit, Need int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("graph: the tensors between kernels take %d bytes even when all that can be is computed again, more than the limit of %d", e.Need, e.Limit)
}

// recomputation decides which tensors are not kept from the forward pass but recomputed in the
// backward pass (activation checkpointing, Chen et al., arXiv 1604.06174). The same kernels on the
// same inputs give the same bits.
type recomputation struct {
	c     *compiler
	steps []pending
	// maker is the forward step that computes a storage.
	maker map[*storage]int
	// saved are the storages that backward steps read.
	saved map[*storage]bool
	// results outlive the plan's run.
	results map[*storage]bool
	// stream are the storages that more than one block of the model reads or writes.
	stream map[*storage]bool
	// dense are the storages that some step needs without gaps between rows.
	dense map[*storage]bool
}

func (c *compiler) newRecomputation() *recomputation {
	r := &recomputation{c: c, steps: c.steps, maker: map[*storage]int{}, saved: map[*storage]bool{}, results: map[*storage]bool{}, stream: map[*storage]bool{}, dense: map[*storage]bool{}}
	for i, s := range r.steps {
		for k, v := range s.in {
			r.dense[v.st] = r.dense[v.st] || !s.In[k].Strided
		}
		for k, v := range s.out {
			r.dense[v.st] = r.dense[v.st] || !s.Out[k].Strided
		}
		if s.backward {
			for _, v := range s.in {
				r.saved[v.st] = true
			}
			continue
		}
		for _, v := range s.in {
			if m, ok := r.maker[v.st]; ok && r.steps[m].block != s.block {
				r.stream[v.st] = true
			}
		}
		for _, v := range s.out {
			r.maker[v.st] = i
		}
	}
	for _, o := range c.b.out {
		r.results[c.values[o.node].st] = true
	}
	return r
}

// choice is one step that may be repeated, together with the steps whose outputs it reads and that
// are not kept either.
type choice struct {
	steps []int
	gain  float64 // memory saved per unit of work
}

// choices are all possible choices, the best first. Among equals the earlier steps come first:
// those not chosen, the later ones, would be recomputed while everything else is still kept.
func (r *recomputation) choices() []choice {
	var list []choice
	for i, s := range r.steps {
		steps := map[int]bool{}
		if s.backward || !r.close(i, steps) {
			continue
		}
		saved, work := 0, 0.0
		c := choice{steps: slices.Sorted(maps.Keys(steps))}
		for _, k := range c.steps {
			for _, v := range r.steps[k].out {
				if r.saved[v.st] {
					saved += v.st.size()
				}
			}
			work += r.work(r.steps[k])
		}
		if saved > 0 {
			c.gain = float64(saved) / max(work, 1)
			list = append(list, c)
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].gain > list[j].gain })
	return r.apart(list)
}

// close adds step i and those that must be repeated with it. It returns false if one of them can't
// be.
func (r *recomputation) close(i int, steps map[int]bool) bool {
	if steps[i] {
		return true
	}
	if r.steps[i].block == 0 {
		return false
	}
	steps[i] = true
	for _, v := range r.steps[i].out {
		if r.results[v.st] || v.st.region != Arena {
			return false
		}
	}
	for _, v := range r.steps[i].in {
		if m, made := r.maker[v.st]; made && !r.saved[v.st] && !r.close(m, steps) {
			return false
		}
	}
	return true
}

// apart removes choices that would recompute part of the stream from another part that is not kept
// either: in the end, the entire stream from its beginning, at once.
func (r *recomputation) apart(list []choice) []choice {
	drop, from := map[*storage]bool{}, map[*storage]bool{}
	return slices.DeleteFunc(list, func(c choice) bool {
		var out, in []*storage
		for _, k := range c.steps {
			for _, v := range r.steps[k].out {
				if r.stream[v.st] {
					out = append(out, v.st)
				}
			}
			for _, v := range r.steps[k].in {
				if r.stream[v.st] {
					in = append(in, v.st)
				}
			}
		}
		if len(out) == 0 {
			return false
		}
		if slices.ContainsFunc(in, func(s *storage) bool { return drop[s] }) || slices.ContainsFunc(out, func(s *storage) bool { return from[s] }) {
			return true
		}
		for _, s := range out {
			drop[s] = true
		}
		for _, s := range in {
			from[s] = true
		}
		return false
	})
}

// work estimates a step's time, in FLOPs of matrix products.
func (r *recomputation) work(s pending) float64 {
	if s.Spec.Cost == nil {
		return 0
	}
	c := s.Spec.Cost(s.Dims)
	scalar := 1.0
	if r.c.b.round != nil {
		scalar = scalarInProduct
	}
	return c.Products + scalar*(c.FLOPs-c.Products) + byteInFLOPs*c.Bytes
}

// dropped are the storages that the choices do not keep.
func (r *recomputation) dropped(list []choice) map[*storage]bool {
	drop := map[*storage]bool{}
	for _, c := range list {
		for _, k := range c.steps {
			for _, v := range r.steps[k].out {
				drop[v.st] = true
			}
		}
	}
	return drop
}

// fit lays out the arena within limit bytes, recomputing as little as that takes; 0 means no limit.
// It returns the arena's length.
func (c *compiler) fit(limit int64) (int, error) {
	steps, total, err := c.laidOut(c.steps)
	if err != nil || limit <= 0 || 4*int64(total) <= limit {
		c.steps = steps
		return total, err
	}
	r := c.newRecomputation()
	list := r.choices()
	try := func(n int) ([]pending, int, error) { return c.laidOut(r.rewrite(r.dropped(list[:n]))) }
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

// laidOut is the final list of steps for a given list, laid out in memory, and the arena's length.
func (c *compiler) laidOut(steps []pending) ([]pending, int, error) {
	steps, err := c.joinActivations(steps)
	if err == nil {
		steps, err = c.narrow(steps)
	}
	if err != nil {
		return nil, 0, err
	}
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
