package graph

import (
	"iter"
	"math"
	"slices"
)

// align is the granularity of all offsets, in elements: 64 bytes, a cache line and an AVX-512
// register.
const align = 16

// stateAlign is that of states: 256 bytes. A head's key is read from a cache in runs of 128 or 256
// bytes, each of which would otherwise take part of one more line of memory.
const stateAlign = 64

func roundUp(n int) int { return multiple(n, align) }

// multiple rounds n up to a multiple of granule.
func multiple(n, granule int) int { return (n + granule - 1) / granule * granule }

// storage is a block of memory that holds one or more values. A storage whose home is set has
// become part of another one.
type storage struct {
	region      Region
	offset      int
	rows, cols  int
	pad         int // elements between rows
	dtype       DType
	first, last int // the first and the last step that use it
	home        *storage
	values      []*value
	inside      *storage // the arena storage that it is part of, at offset at; nil for none
	at          int
}

func newStorage(r Region, s Shape, t DType) *storage {
	return &storage{region: r, rows: s.Rows(), cols: s.Cols(), dtype: t, first: math.MaxInt, last: -1}
}

// hold adds a value: the columns from col on.
func (s *storage) hold(shape Shape, col int) *value {
	v := &value{shape: shape, st: s, col: col}
	s.values = append(s.values, v)
	return v
}

func (s *storage) root() *storage {
	for s.home != nil {
		s = s.home
	}
	return s
}

// place is the storage's offset in its region, in units of 4 bytes.
func (s *storage) place() int {
	if s.inside != nil {
		return s.inside.root().place() + s.at
	}
	return s.offset
}

// stride is the distance between rows, in elements.
func (s *storage) stride() int { return s.cols + s.pad }

// size is in units of 4 bytes.
func (s *storage) size() int {
	n := (s.rows*s.stride()*s.dtype.Size() + 3) / 4
	if s.region == States {
		return multiple(n, stateAlign)
	}
	return roundUp(n)
}

// value is one tensor: some columns of a storage.
type value struct {
	shape Shape
	st    *storage
	col   int
}

// whole reports whether a value is all of its storage.
func (v *value) whole() bool { return v.col == 0 && v.st.cols == v.shape.Cols() }

// layout assigns each storage of a list of steps its place, and returns the length of the arena. It
// can be called again for another list.
func (c *compiler) layout(steps []pending) int {
	for _, s := range steps {
		for st := range s.storages() {
			st.first, st.last, st.home = math.MaxInt, -1, nil
		}
	}
	c.lifetimes(steps)
	c.reuse(steps)
	return allocate(steps)
}

// storages are those that must exist at a step.
func (s *pending) storages() iter.Seq[*storage] {
	return func(yield func(*storage) bool) {
		for _, list := range [][]*value{s.in, s.out} {
			for _, v := range list {
				if !yield(v.st) || v.st.inside != nil && !yield(v.st.inside) {
					return
				}
			}
		}
		if s.holds != nil {
			yield(s.holds)
		}
	}
}

func (c *compiler) lifetimes(steps []pending) {
	for i, s := range steps {
		for st := range s.storages() {
			st.first = min(st.first, i)
			st.last = max(st.last, i)
		}
	}
	for _, o := range c.b.out {
		c.values[o.node].st.last = len(steps)
	}
}

// reuse lets output 0 reuse the block of an input that nothing reads afterwards. If the output is a
// parameter's gradient, it keeps its own place and the input moves there instead, unless gradients
// are accumulated there.
func (c *compiler) reuse(steps []pending) {
	for i, s := range steps {
		if len(s.out) == 0 || !s.out[0].whole() || s.out[0].st.inside != nil {
			continue
		}
		out := s.out[0]
		gradient := out.st.region == Grads && !c.b.accumulate
		if out.st.region != Arena && !gradient || out.st.first < i {
			continue // or the place holds a former input already
		}
		for _, k := range s.Spec.InPlace {
			in := s.in[k]
			st := in.st.root()
			// A kernel may read its other inputs after part of the output is written.
			shared := false
			for j, other := range s.in {
				shared = shared || j != k && other.st.root() == st
			}
			for _, other := range s.out[1:] { // that have this place already
				shared = shared || other.st.root() == st
			}
			if shared || st.region != Arena || st.inside != nil || st.last != i || in.col != 0 || st.dtype != out.st.dtype || st.cols != out.shape.Cols() || st.pad != out.st.pad || st.rows != out.shape.Rows() {
				continue
			}
			if gradient {
				st.home = out.st
			} else {
				st.last = out.st.last
				out.st.home = st
			}
			break
		}
	}
}

// allocate gives arena storages offsets such that those that live at the same time don't overlap:
// the largest first, each at the lowest free offset.
func allocate(steps []pending) int {
	var list []*storage
	seen := map[*storage]bool{}
	for _, s := range steps {
		for _, v := range slices.Concat(s.in, s.out) {
			if st := v.st.root(); st.region == Arena && st.inside == nil && !seen[st] {
				seen[st] = true
				list = append(list, st)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *storage) int { return b.size() - a.size() })
	var placed []*storage // sorted by offset
	total := 0
	for _, s := range list {
		s.offset = 0
		for _, q := range placed {
			if s.first <= q.last && q.first <= s.last && s.offset < q.offset+q.size() && q.offset < s.offset+s.size() {
				s.offset = q.offset + q.size()
			}
		}
		at, _ := slices.BinarySearchFunc(placed, s, func(a, b *storage) int { return a.offset - b.offset })
		placed = slices.Insert(placed, at, s)
		total = max(total, s.offset+s.size())
	}
	return total
}
