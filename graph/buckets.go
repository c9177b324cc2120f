package graph

import (
	"iter"
	"slices"
)

// Buckets divide the flat regions of parameters and gradients into parts that processes exchange
// one at a time. If R processes share the work, process r has piece r of the R equal pieces of each
// bucket.
type Buckets struct {
	// Length is the total length, and Size that of the largest bucket; both are multiples of 16 R
	// elements, as is the length of each bucket.
	Length, Size int
	from         []int
}

// NewBuckets divides n elements into buckets of about size elements, for this many processes.
func NewBuckets(n, size, processes int) Buckets {
	granule := align * processes
	size = multiple(max(size, 1), granule)
	var lengths []int
	for ; n > 0; n -= size {
		lengths = append(lengths, min(n, size))
	}
	return bucketsOf(lengths, processes)
}

// bucketsOf makes buckets of at least these lengths.
func bucketsOf(lengths []int, processes int) Buckets {
	granule := align * processes
	var b Buckets
	for _, n := range lengths {
		n = multiple(n, granule)
		b.from = append(b.from, b.Length)
		b.Length += n
		b.Size = max(b.Size, n)
	}
	return b
}

// Count is the number of buckets.
func (b Buckets) Count() int { return len(b.from) }

// At is the offset and length of bucket i.
func (b Buckets) At(i int) (from, n int) {
	end := b.Length
	if i+1 < len(b.from) {
		end = b.from[i+1]
	}
	return b.from[i], end - b.from[i]
}

// Find is the bucket that contains an element.
func (b Buckets) Find(element int) int {
	i, found := slices.BinarySearch(b.from, element)
	if !found {
		i--
	}
	return i
}

// All are the buckets' offsets and lengths.
func (b Buckets) All() iter.Seq2[int, int] {
	return func(yield func(from, n int) bool) {
		for i := range b.from {
			if !yield(b.At(i)) {
				return
			}
		}
	}
}

// Reduction sums gradients over the processes of a run in the backward pass.
type Reduction struct {
	// Op reduces a bucket x [N] to y [N] in place.
	Op *Spec
	// Buckets are at least as long as all gradients.
	Buckets Buckets
	// Round is the op between float32 and bfloat16, if gradients are sent and summed in bfloat16;
	// nil if they are in float32. They are stored in float32 in both cases.
	Round *Spec
}

// SetReduction makes the backward pass sum gradients over the processes of a run, each bucket as
// soon as it is complete.
func (b *Builder) SetReduction(r Reduction) { b.reduction = &r }

// rewrite inserts a bucket's reduction after the last step that writes or reads one of its
// gradients.
func (r *Reduction) rewrite(steps []pending) ([]pending, error) {
	last := make([]int, r.Buckets.Count())
	for k := range last {
		last[k] = len(steps) - 1 // for a bucket of padding only
	}
	for i, s := range steps {
		for _, v := range slices.Concat(s.in, s.out) {
			if v.st.region != Grads {
				continue
			}
			end := v.st.offset + v.shape.Size() - 1
			for k := r.Buckets.Find(v.st.offset); k <= r.Buckets.Find(end); k++ {
				last[k] = i
			}
		}
	}
	var list []pending
	var open []pending // steps that follow the previous reduction; they run once the next has begun
	for i, s := range steps {
		list = append(list, s)
		for k, at := range last {
			if at != i {
				continue
			}
			reduction, then, err := r.reduce(k)
			if err != nil {
				return nil, err
			}
			list, open = append(append(list, reduction...), open...), then
		}
	}
	return append(list, open...), nil
}

// reduce is the steps that sum a bucket over the processes, and those that follow once that is
// done.
func (r *Reduction) reduce(bucket int) (steps, then []pending, err error) {
	from, n := r.Buckets.At(bucket)
	shape := Shape{n}
	st := newStorage(Grads, shape, Float32)
	st.offset = from
	grads := st.hold(shape, 0)
	res, err := r.Op.Resolve([]Shape{shape})
	if err != nil {
		return nil, nil, err
	}
	call := &call{Resolved: res, backward: true}
	if r.Round == nil {
		return []pending{{call: call, in: []*value{grads}, out: []*value{grads}}}, nil, nil
	}
	half := newStorage(Arena, shape, BFloat16).hold(shape, 0)
	round, err := convert(r.Round, grads, half, call)
	if err != nil {
		return nil, nil, err
	}
	back, err := convert(r.Round, half, grads, call)
	return []pending{round, {call: call, in: []*value{half}, out: []*value{half}}}, []pending{back}, err
}

// convert is a step that converts a vector to another type, in the layer of another call.
func convert(round *Spec, from, to *value, of *call) (pending, error) {
	shape := Shape{1, 1, from.shape.Size()}
	r, err := round.Resolve([]Shape{shape})
	return pending{call: &call{Resolved: r, path: of.path, backward: of.backward},
		in: []*value{from.st.hold(shape, 0)}, out: []*value{to.st.hold(shape, 0)}}, err
}
