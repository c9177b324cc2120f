package graph

import (
	"fmt"
	"iter"
	"slices"
)

// Buckets cut the flat regions of parameters and gradients in runs that processes
// exchange one at a time. Where the optimizer is sharded, process r of R has piece r of
// R equal ones of each bucket.
type Buckets struct {
	// Length is of all, a multiple of 16 R elements; the last bucket may be shorter than
	// Size, which is one too.
	Length, Size int
}

// NewBuckets cuts n elements in buckets of about size for a run of so many processes.
func NewBuckets(n, size, processes int) Buckets {
	granule := align * processes
	up := func(n int) int { return (n + granule - 1) / granule * granule }
	return Buckets{Length: up(n), Size: up(max(size, 1))}
}

// All are the buckets' offsets and lengths.
func (b Buckets) All() iter.Seq2[int, int] {
	return func(yield func(from, n int) bool) {
		for from := 0; from < b.Length; from += b.Size {
			if !yield(from, min(b.Size, b.Length-from)) {
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
