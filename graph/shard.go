package graph

import (
	"fmt"
	"slices"
)

// Sharding gives each of R processes only a piece of the parameters and of their gradients (ZeRO
// stage 3, arXiv 1910.02054; FSDP, 2304.11277). A plan then gathers a block's parameters one block
// ahead of their use, in the forward and in the backward pass, and reduces a block's gradients once
// all of them are complete. Gathered parameters are in the arena, and their memory is free after
// the block.
//
// The flat layout of all parameters is divided into buckets: one per block or, in mixed precision,
// two, one with the parameters that are read in float32 only and one with the others, which are
// sent in bfloat16. Process r stores piece r of the R equal pieces of each bucket, contiguously, in
// the regions Params, Grads and Shadow.
type Sharding struct {
	// Processes is R.
	Processes int
	// Gather is the op that makes a vector [R M] from every process's piece [M]; Reduce sums such
	// vectors over the processes and gives each process its piece.
	Gather, Reduce *Spec
	// Clear is the op that zeroes a vector [N] in place.
	Clear *Spec
	// Round is as in Reduction.
	Round *Spec
	// Like is a plan of the same model whose layout is reused; nil makes a new layout.
	Like *Plan
}

// SetSharding makes a plan for one of several processes that store only their pieces of the
// parameters and gradients. It must be called before Compile; the backward pass may read any
// parameter.
func (b *Builder) SetSharding(s Sharding) { b.sharding = &s }

// item is a bucket in one of the regions Params, Shadow and Grads.
type item struct {
	bucket int
	region Region
}

// sharder inserts gathers and reductions into lists of steps.
type sharder struct {
	*Sharding
	add        func(rank int) *Spec
	accumulate bool
	buckets    Buckets
	blocks     []int // of each bucket: parameters with the same number are used together
	// gaps are the ranges of each bucket that belong to no parameter. They must be zero, because
	// the optimizer processes them, too.
	gaps [][]span
}

// span is the elements [from, to) of a bucket.
type span struct{ from, to int }

// newSharder lays out the parameters for the builder's sharding, and moves their leaves.
func (c *compiler) newSharder() (*sharder, error) {
	s := &sharder{Sharding: c.b.sharding, add: c.b.add, accumulate: c.b.accumulate}
	var groups []*shardGroup
	if s.Like == nil {
		groups = c.shardGroups()
		var lengths []int
		for _, g := range groups {
			lengths = append(lengths, g.length)
		}
		s.buckets = bucketsOf(lengths, s.Processes)
		for i, g := range groups {
			from, _ := s.buckets.At(i)
			for _, p := range g.params {
				c.values[p.node].st.offset += from
			}
		}
	} else if err := c.layOutLike(s.Like); err != nil {
		return nil, err
	} else {
		s.buckets = s.Like.Buckets
	}
	s.findGaps(c)
	return s, nil
}

// shardGroup is the parameters of a bucket. Offsets of their leaves count from its start.
type shardGroup struct {
	params []*Param
	length int
}

func (c *compiler) shardGroups() []*shardGroup {
	var groups []*shardGroup
	block := -1
	var precise, others *shardGroup
	for _, p := range c.b.params {
		if p.block != block || precise == nil {
			block, precise, others = p.block, &shardGroup{}, &shardGroup{}
			groups = append(groups, precise, others)
		}
		g := others
		if c.b.round != nil && c.readsPrecise(p) {
			g = precise
		}
		st := c.values[p.node].st
		st.offset = g.length
		g.length += st.size()
		g.params = append(g.params, p)
	}
	return slices.DeleteFunc(groups, func(g *shardGroup) bool { return g.length == 0 })
}

// readsPrecise reports whether mixed precision reads a parameter in float32 only.
func (c *compiler) readsPrecise(p *Param) bool {
	if len(p.Shape) < 2 {
		return true
	}
	for _, n := range c.b.g.AllNodes() {
		op, ok := n.Op().(*call)
		if !ok {
			continue
		}
		for i, child := range c.b.children(n) {
			if child == p.node && op.In[i].Kind != Precise && !op.precise {
				return false
			}
		}
	}
	return true
}

// layOutLike gives the parameters their places in another plan.
func (c *compiler) layOutLike(p *Plan) error {
	places := map[string]ParamSlot{}
	for _, q := range p.Params {
		places[q.Name] = q
	}
	for _, q := range c.b.params {
		at, ok := places[q.Name]
		if !ok || !at.Shape.Equal(q.Shape) {
			return fmt.Errorf("graph: parameter %s%v is not one of the plan's whose layout is taken", q.Name, q.Shape)
		}
		c.values[q.node].st.offset = at.Offset
	}
	return nil
}

// findGaps records the gaps of each bucket, and the block that each bucket belongs to.
func (s *sharder) findGaps(c *compiler) {
	params := slices.Clone(c.b.params)
	slices.SortFunc(params, func(a, b *Param) int { return c.values[a.node].st.offset - c.values[b.node].st.offset })
	n := s.buckets.Count()
	s.blocks, s.gaps = make([]int, n), make([][]span, n)
	end := make([]int, n) // of the parameters so far, in each bucket
	run := 0
	for i, p := range c.b.params {
		if i > 0 && p.block != c.b.params[i-1].block {
			run++
		}
		s.blocks[s.buckets.Find(c.values[p.node].st.offset)] = run
	}
	for _, p := range params {
		at := c.values[p.node].st.offset
		i := s.buckets.Find(at)
		from, _ := s.buckets.At(i)
		if at-from > end[i] {
			s.gaps[i] = append(s.gaps[i], span{end[i], at - from})
		}
		end[i] = at - from + p.Shape.Size()
	}
	for i := range n {
		if _, length := s.buckets.At(i); end[i] < length {
			s.gaps[i] = append(s.gaps[i], span{end[i], length})
		}
	}
}

// itemOf is the item that contains v.
func (s *sharder) itemOf(v *value) (item, bool) {
	switch v.st.region {
	case Params, Grads:
		return item{s.buckets.Find(v.st.offset), v.st.region}, true
	case Shadow:
		return item{s.buckets.Find(2 * v.st.offset), Shadow}, true
	}
	return item{}, false
}

// words is the number of 4-byte words that some elements of an item take: half as many for a
// bfloat16 copy as for float32.
func (it item) words(elements int) int {
	if it.region == Shadow {
		return elements / 2
	}
	return elements
}

// whole is arena memory for an entire item.
func (s *sharder) whole(it item) *value {
	_, n := s.buckets.At(it.bucket)
	shape := Shape{it.words(n)}
	return newStorage(Arena, shape, Float32).hold(shape, 0)
}

// piece is this process's part of an item, in its region.
func (s *sharder) piece(it item) *value {
	from, n := s.buckets.At(it.bucket)
	shape := Shape{it.words(n / s.Processes)}
	st := newStorage(it.region, shape, Float32)
	st.offset = it.words(from / s.Processes)
	return st.hold(shape, 0)
}

// within is v, part of an item, in a gathered copy of the item.
func (s *sharder) within(whole *value, it item, v *value) *value {
	from, _ := s.buckets.At(it.bucket)
	st := &storage{region: Arena, rows: v.st.rows, cols: v.st.cols, dtype: v.st.dtype, inside: whole.st, at: v.st.offset - it.words(from)}
	return st.hold(v.shape, v.col)
}

// rewrite is the list of steps with gathered parameters and reduced gradients.
func (s *sharder) rewrite(steps []pending) ([]pending, error) {
	before, copies, err := s.gathers(steps)
	if err != nil {
		return nil, err
	}
	grads, last := s.gradients(steps)
	var list []pending
	var open []pending // steps that follow the previous reduction; they run once the next has begun
	var held *storage
	for i, step := range steps {
		list = append(list, before[i]...)
		step.in, step.out = slices.Clone(step.in), slices.Clone(step.out)
		for k, v := range step.in {
			if w := copies[use{i, k}]; w != nil {
				step.in[k] = w
			} else if it, ok := s.itemOf(v); ok {
				step.in[k] = s.within(grads[it.bucket], it, v)
			}
		}
		for k, v := range step.out {
			if it, ok := s.itemOf(v); ok {
				step.out[k] = s.within(grads[it.bucket], it, v)
			}
		}
		list = append(list, step)
		for bucket, at := range last {
			if at != i {
				continue
			}
			reduce, then, err := s.reduce(bucket, grads[bucket], step.call)
			if err != nil {
				return nil, err
			}
			// The previous reduction may still run concurrently with the kernels up to here.
			call := &reduce[len(reduce)-1]
			call.holds, held = held, call.in[0].st
			list, open = append(append(list, reduce...), open...), then
		}
	}
	return append(list, open...), nil
}

// use is input k of a step.
type use struct{ step, input int }

// gathers determines when parameters must be gathered: the steps to insert before each step, and
// the copy that each input reads. One copy serves several uses of a block if at most one other
// block is used in between.
func (s *sharder) gathers(steps []pending) (before map[int][]pending, copies map[use]*value, err error) {
	type visit struct{ block, step, window int }
	const near = 2
	type key struct {
		window int
		item
	}
	var visits []visit
	latest := map[int]int{} // of a block, its latest visit
	made := map[key]*value{}
	before, copies = map[int][]pending{}, map[use]*value{}
	for i, step := range steps {
		for k, v := range step.in {
			it, ok := s.itemOf(v)
			if !ok || it.region == Grads {
				continue
			}
			block := s.blocks[it.bucket]
			if n := len(visits); n == 0 || visits[n-1].block != block {
				window := n
				if last, ok := latest[block]; ok && n-last <= near {
					window = visits[last].window
				}
				visits, latest[block] = append(visits, visit{block, i, window}), n
			}
			window := visits[len(visits)-1].window
			whole := made[key{window, it}]
			if whole == nil {
				whole = s.whole(it)
				made[key{window, it}] = whole
				r, err := s.Gather.Resolve([]Shape{{whole.shape[0] / s.Processes}})
				if err != nil {
					return nil, nil, err
				}
				at := visits[max(window-1, 0)].step
				before[at] = append(before[at], pending{call: s.callLike(r, step.call), in: []*value{s.piece(it)}, out: []*value{whole}})
			}
			copies[use{i, k}] = s.within(whole, it, v)
		}
	}
	return before, copies, nil
}

// callLike is a call of a collective in the layer and pass of another call.
func (s *sharder) callLike(r *Resolved, of *call) *call {
	return &call{Resolved: r, path: of.path, backward: of.backward}
}

// gradients is arena memory for each bucket's gradients, and the last step that uses them; -1 if
// none does.
func (s *sharder) gradients(steps []pending) (wholes []*value, last []int) {
	wholes, last = make([]*value, s.buckets.Count()), make([]int, s.buckets.Count())
	for i := range last {
		last[i] = -1
	}
	for i, step := range steps {
		for _, v := range slices.Concat(step.in, step.out) {
			it, ok := s.itemOf(v)
			if !ok || it.region != Grads {
				continue
			}
			if last[it.bucket] < 0 {
				wholes[it.bucket] = s.whole(it)
			}
			last[it.bucket] = i
		}
	}
	return wholes, last
}

// reduce is the steps that sum a bucket's gradients over the processes, and those that follow once
// that is done.
func (s *sharder) reduce(bucket int, whole *value, of *call) (steps, then []pending, err error) {
	for _, g := range s.gaps[bucket] {
		n := g.to - g.from
		r, err := s.Clear.Resolve([]Shape{{n}})
		if err != nil {
			return nil, nil, err
		}
		st := &storage{region: Arena, rows: 1, cols: n, inside: whole.st, at: g.from}
		steps = append(steps, pending{call: s.callLike(r, of), in: []*value{st.hold(Shape{n}, 0)}})
	}
	r, err := s.Reduce.Resolve([]Shape{whole.shape})
	if err != nil {
		return nil, nil, err
	}
	sum, dtype := s.piece(item{bucket, Grads}), Float32
	reduce := pending{call: s.callLike(r, of), in: []*value{whole}}
	if s.Round != nil {
		dtype = BFloat16
		half := newStorage(Arena, whole.shape, dtype).hold(whole.shape, 0)
		round, err := convert(s.Round, whole, half, of)
		if err != nil {
			return nil, nil, err
		}
		steps, reduce.in = append(steps, round), []*value{half}
	}
	if dtype == Float32 && !s.accumulate {
		reduce.out = []*value{sum}
		return append(steps, reduce), nil, nil
	}
	part := newStorage(Arena, sum.shape, dtype).hold(sum.shape, 0)
	reduce.out = []*value{part}
	follow, err := s.follow(part, sum, of)
	return append(steps, reduce), []pending{follow}, err
}

// follow converts a sum over the processes to the stored gradients, or adds it to those of earlier
// micro-batches.
func (s *sharder) follow(part, sum *value, of *call) (pending, error) {
	if !s.accumulate {
		return convert(s.Round, part, sum, of)
	}
	add, err := s.add(1).Resolve([]Shape{sum.shape, sum.shape})
	return pending{call: s.callLike(add, of), in: []*value{sum, part}, out: []*value{sum}}, err
}

// size sets the sizes of a plan's regions to a process's share.
func (s *sharder) size(p *Plan) {
	p.Buckets = s.buckets
	for _, r := range []Region{Params, Grads, Shadow} {
		if p.Sizes[r] > 0 {
			p.Sizes[r] = item{region: r}.words(s.buckets.Length / s.Processes)
		}
	}
}
