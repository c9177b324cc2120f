package graph

import (
	"fmt"
	"iter"
	"slices"
)

// Buckets cut the flat regions of parameters and gradients in runs that processes
// exchange one at a time. Of R processes that share something out, process r has piece r
// of R equal ones of each bucket.
type Buckets struct {
	// Length is of all, and Size of the largest; both are multiples of 16 R elements, as
	// each bucket's length is.
	Length, Size int
	from         []int
}

// NewBuckets cuts n elements in buckets of about size for a run of so many processes.
func NewBuckets(n, size, processes int) Buckets {
	granule := align * processes
	size = (max(size, 1) + granule - 1) / granule * granule
	var lengths []int
	for ; n > 0; n -= size {
		lengths = append(lengths, min(n, size))
	}
	return bucketsOf(lengths, processes)
}

// bucketsOf has buckets of at least these lengths.
func bucketsOf(lengths []int, processes int) Buckets {
	granule := align * processes
	var b Buckets
	for _, n := range lengths {
		n = (n + granule - 1) / granule * granule
		b.from = append(b.from, b.Length)
		b.Length += n
		b.Size = max(b.Size, n)
	}
	return b
}

// Count is the number of buckets.
func (b Buckets) Count() int { return len(b.from) }

// At is bucket i's offset and length.
func (b Buckets) At(i int) (from, n int) {
	end := b.Length
	if i+1 < len(b.from) {
		end = b.from[i+1]
	}
	return b.from[i], end - b.from[i]
}

// Find is the bucket that has an element.
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

// reduce adds a step for each bucket, behind the last step that writes one of its
// gradients.
func (p *Plan) reduce(op *Spec, buckets Buckets) error {
	if buckets.Length < p.Sizes[Grads] {
		return fmt.Errorf("graph: buckets of %d elements for %d gradients", buckets.Length, p.Sizes[Grads])
	}
	p.Sizes[Grads] = buckets.Length
	behind := make([][]Step, len(p.Steps))
	for from, n := range buckets.All() {
		r, err := op.Resolve([]Shape{{n}})
		if err != nil {
			return err
		}
		last := len(p.Steps) - 1 // of a bucket that is padding
		for i, s := range p.Steps {
			if slices.ContainsFunc(s.Out, func(o Slot) bool {
				return o.Region == Grads && o.Offset < from+n && from < o.Offset+o.Rows*o.Cols
			}) {
				last = i
			}
		}
		slot := Slot{Region: Grads, Offset: from, Rows: 1, Cols: n, Stride: n, Shape: Shape{n}}
		behind[last] = append(behind[last], Step{Resolved: r, In: []Slot{slot}, Out: []Slot{slot}, Backward: true})
	}
	var steps []Step
	for i, s := range p.Steps {
		steps = append(append(steps, s), behind[i]...)
	}
	p.Steps = steps
	return nil
}
