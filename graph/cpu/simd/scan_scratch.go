package simd

import (
	"fmt"
	"unsafe"
)

// scanPanel is a matrix over the channels of one call, [rows][width], in scratch memory. width is
// the number of channels rounded up to whole vectors; elements beyond the range are zero.
type scanPanel struct {
	data  []float32
	width int
}

// from returns the panel's vectors at lane `column`, for all rows.
func (p scanPanel) from(column int) []float32 { return p.data[column:] }

// gather copies columns [c0, c1) of the first rows of src.
func (p scanPanel) gather(src Rows, rows, c0, c1 int) {
	for i := range rows {
		dst := p.data[i*p.width : (i+1)*p.width]
		clear(dst[copy(dst, src.row(i, c0, c1)):])
	}
}

// scatter copies rows to columns [c0, c1) of dst.
func (p scanPanel) scatter(dst Rows, rows, c0, c1 int) {
	for i := range rows {
		copy(dst.row(i, c0, c1), p.data[i*p.width:])
	}
}

// addTo adds rows to columns [c0, c1) of dst.
func (p scanPanel) addTo(dst Rows, rows, c0, c1 int) {
	for i := range rows {
		row := dst.row(i, c0, c1)
		Add(row, row, p.data[i*p.width:i*p.width+len(row)])
	}
}

// scanSpan is the part of the operands that one kernel call processes: one vector of channels, from
// channel c on, over the timesteps of one chunk. Kernels read and write whole vectors in place; for
// an incomplete last vector of the range they work on copies.
type scanSpan struct {
	t0, steps int
	c, c1     int // first channel, end of the range
	lanes     int
}

func (s *scanSpan) whole() bool { return s.c+s.lanes <= s.c1 }

func (s *scanSpan) channels() (c0, c1 int) { return s.c, min(s.c+s.lanes, s.c1) }

// input returns the span's part of src, in place or copied to stage.
func (s *scanSpan) input(src Rows, stage []float32) Rows {
	if s.whole() {
		return Rows{src.Data[s.t0*src.Stride+s.c:], src.Stride}
	}
	c0, c1 := s.channels()
	scanPanel{stage, s.lanes}.gather(src.from(s.t0), s.steps, c0, c1)
	return Rows{stage, s.lanes}
}

// output returns where to write the span's part of dst: in place, or in stage, which flush copies
// afterwards.
func (s *scanSpan) output(dst Rows, stage []float32) Rows {
	if s.whole() {
		return Rows{dst.Data[s.t0*dst.Stride+s.c:], dst.Stride}
	}
	return Rows{stage, s.lanes}
}

func (s *scanSpan) flush(dst Rows, stage []float32) {
	if !s.whole() {
		c0, c1 := s.channels()
		scanPanel{stage, s.lanes}.scatter(dst.from(s.t0), s.steps, c0, c1)
	}
}

// from returns r without its first t rows.
func (r Rows) from(t int) Rows { return Rows{r.Data[t*r.Stride:], r.Stride} }

// scanArena hands out the caller's scratch memory piece by piece.
type scanArena struct{ free []float32 }

func newScanArena(scratch []float32, want int) scanArena {
	if len(scratch) < want {
		panic(fmt.Sprintf("simd: selective scan scratch has %d elements, want %d", len(scratch), want))
	}
	return scanArena{scratch}
}

func (s *scanArena) take(n int) []float32 {
	x := s.free[:n:n]
	s.free = s.free[n:]
	return x
}

func (s *scanArena) panel(rows, width int) scanPanel {
	return scanPanel{s.take(rows * width), width}
}

// scanAhead lists rows to prefetch: for each operand the address of the first row and the bytes
// between rows, followed by two zeros. The addresses are not references: nothing is read or written
// through them, so they may be beyond the operand's end.
type scanAhead []uintptr

const (
	scanOperands  = 7                                     // the largest number of operands with timesteps and channels in a pass
	scanAheadSize = 2 * (scanOperands + 1) * wordElements // elements of scratch
	wordElements  = 2                                     // of scratch in a uintptr
)

// ahead allocates a list.
func (s *scanArena) ahead() scanAhead {
	x := s.take(scanAheadSize)
	return unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/wordElements)
}

// of lists the columns from c on of the given operands, from timestep t on; none if a sequence of
// `tokens` tokens has no such timestep.
func (p scanAhead) of(t, tokens, c int, operands ...Rows) []uintptr {
	n := 0
	for _, r := range operands {
		if t >= 0 && t < tokens && r.Data != nil {
			p[n], p[n+1] = uintptr(unsafe.Pointer(&r.Data[t*r.Stride+c])), uintptr(4*r.Stride)
			n += 2
		}
	}
	p[n], p[n+1] = 0, 0
	return p[:n+2]
}
