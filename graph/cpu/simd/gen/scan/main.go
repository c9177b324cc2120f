// Command scan writes the assembly of the selective scan's kernels, and its Go declarations. The Go
// versions in scan_portable.go define what each computes. Run it with go generate in graph/cpu/simd.
package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// chunk is simd.ScanChunk.
const chunk = 32

// statesAtOnce is simd.scanStatesAtOnce, the number of states that a kernel takes through a chunk
// together: their chains of multiply-adds are independent, and they share the loads and stores of
// per-timestep data. Four were no faster.
const statesAtOnce = 2

// The rows of the work array, [row][chunk][lanes], as in scan_kernels.go.
const (
	workDelta = iota
	workDeltaU
	workSig
	workY
	workGY
	workS
	workDDelta
	workHistory
)

// The rows of the sums of one block of states: products of each timestep, whose lanes add up to the
// block's elements of dB and dC.
const (
	sumB = iota
	sumC
	sumRows
)

func main() {
	Each(delta)
	Each(states)
	Each(gate)
	Each(statesGrad)
	Each(gateGrad)
	Each(deltaGrad)
	Each(addLanes)
	Generate()
}

func at(base Register) Mem { return Mem{Base: base} }

// work is the work array; of returns row i at the timestep with this byte offset.
type work struct {
	s    ISA
	base Register
}

func (w work) of(i int, offset Register) Mem {
	return Mem{Base: w.base, Index: offset, Scale: 1, Disp: i * chunk * w.s.Bytes()}
}

func splat(base Register, element int) Splat { return Splat{Mem: at(base).Offset(4 * element)} }

func advance(bytes int, pointers ...Register) {
	for _, p := range pointers {
		ADDQ(Imm(uint64(bytes)), p)
	}
}

// ahead iterates over parameter ahead, pairs of the address of a row and the bytes to the next row:
// rows that the next chunk reads or writes, too far apart for the hardware prefetchers. A pass over
// a chunk's timesteps prefetches one line of each row of one pair, so that memory is busy while the
// states are computed. From the terminating pair of zeros on it touches the work array, which is in
// the cache.
type ahead struct {
	idle        Register
	row, stride Register
}

func newAhead(idle Register) *ahead { return &ahead{idle, GP64(), GP64()} }

// begin reads the next pair. The parameter itself is used as the pointer to it: registers are
// scarce.
func (a *ahead) begin(label string) {
	parameter, next := base("ahead"), Ptr("ahead")
	MOVQ(at(next), a.row)
	MOVQ(at(next).Offset(8), a.stride)
	ADDQ(Imm(16), next)
	TESTQ(a.row, a.row)
	JNE(LabelRef(label + "ahead"))
	MOVQ(a.idle, a.row)
	SUBQ(Imm(16), next)
	Label(label + "ahead")
	MOVQ(next, parameter)
}

// base is the address of the pointer of slice parameter name.
func base(name string) Mem {
	b, err := Param(name).Base().Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// line prefetches a line of the pair's next row.
func (a *ahead) line() {
	PREFETCHT1(at(a.row))
	ADDQ(a.stride, a.row)
}

// timesteps runs body for each of steps, with offset the byte offset of the timestep in packed operands.
func timesteps(s ISA, label string, steps Register, body func(offset Register)) {
	offset := GP64()
	XORQ(offset, offset)
	n := GP64()
	MOVQ(steps, n)
	Label(label)
	body(offset)
	ADDQ(Imm(uint64(s.Bytes())), offset)
	DECQ(n)
	JNZ(LabelRef(label))
}

// eachBlock emits body for blocks of statesAtOnce states and then for single ones.
func eachBlock(body func(states int, label string)) {
	n := Int("n")
	for _, states := range []int{statesAtOnce, 1} {
		label := fmt.Sprintf("states%d", states)
		Loop(label, n, states, func() { body(states, label) })
	}
}

// eachPanelBlock is eachBlock with row the byte offset of the block's first state in operands with
// the layout [N][width].
func eachPanelBlock(s ISA, width Register, body func(states int, row Register, label string)) {
	row := GP64()
	XORQ(row, row)
	eachBlock(func(states int, label string) {
		body(states, row, label)
		for range states {
			ADDQ(width, row)
		}
	})
}

// panelRows are pointers to successive rows of parameter name, starting at row.
type panelRows struct {
	s       ISA
	pointer Register
	width   Register
}

func rowsOf(s ISA, name string, row, width Register) panelRows {
	p := panelRows{s, Ptr(name), width}
	ADDQ(row, p.pointer)
	return p
}

func (p panelRows) load(n int) []VecVirtual {
	v := make([]VecVirtual, n)
	pointer := CopyOf(p.pointer)
	for i := range v {
		v[i] = p.s.Load(at(pointer))
		ADDQ(p.width, pointer)
	}
	return v
}

func (p panelRows) store(v []VecVirtual) {
	for i := range v {
		p.s.Store(v[i], at(p.pointer))
		ADDQ(p.width, p.pointer)
	}
}

func delta(s ISA) {
	s.Func("scanDelta", "(work, u []float32, uStride int, dt []float32, dtStride int, bias, skip []float32, steps int)")
	w := work{s, Ptr("work")}
	u, uStride, dt, dtStride := Ptr("u"), ByteStride("uStride"), Ptr("dt"), ByteStride("dtStride")
	bias, skip := s.Load(at(Ptr("bias"))), s.Load(at(Ptr("skip")))
	softplus := s.NewSoftplus()
	timesteps(s, "step", Int("steps"), func(offset Register) {
		d, sig := softplus.WithSlope(s.Add(bias, at(dt)))
		v := s.Load(at(u))
		s.Store(d, w.of(workDelta, offset))
		s.Store(sig, w.of(workSig, offset))
		s.Store(s.Mul(d, v), w.of(workDeltaU, offset))
		s.Store(s.Mul(v, skip), w.of(workY, offset))
		ADDQ(uStride, u)
		ADDQ(dtStride, dt)
	})
	End()
}

func states(s ISA) {
	s.Func("scanStates", "(work, h, decay []float32, width int, b []float32, bStride int, c []float32, cStride int, steps, n int, ahead []uintptr)")
	w, width := work{s, Ptr("work")}, ByteStride("width")
	next := newAhead(w.base)
	bStride, cStride := ByteStride("bStride"), ByteStride("cStride")
	exp2 := s.NewExp2()
	eachPanelBlock(s, width, func(states int, row Register, label string) {
		rates := rowsOf(s, "decay", row, width).load(states)
		for _, a := range rates {
			s.MulBy(a, s.Const(math.Log2E))
		}
		hRows := rowsOf(s, "h", row, width)
		h := hRows.load(states)
		b, c := Ptr("b"), Ptr("c")
		next.begin(label)
		timesteps(s, label+"step", Int("steps"), func(offset Register) {
			next.line()
			d, du, y := s.Load(w.of(workDelta, offset)), s.Load(w.of(workDeltaU, offset)), s.Load(w.of(workY, offset))
			for i := range states {
				e := exp2.Of(s.Mul(d, rates[i]))
				s.MulAdd(h[i], e, s.Mul(du, splat(b, i)))
				s.FMA(y, h[i], splat(c, i))
			}
			s.Store(y, w.of(workY, offset))
			ADDQ(bStride, b)
			ADDQ(cStride, c)
		})
		hRows.store(h)
		ADDQ(Imm(uint64(4*states)), base("b"))
		ADDQ(Imm(uint64(4*states)), base("c"))
	})
	End()
}

func gate(s ISA) {
	s.Func("scanGate", "(out []float32, outStride int, y []float32, yStride int, z []float32, zStride, steps int)")
	out, outStride, y, yStride := Ptr("out"), ByteStride("outStride"), Ptr("y"), ByteStride("yStride")
	z, zStride := Ptr("z"), ByteStride("zStride")
	sigmoid := s.NewSigmoid()
	timesteps(s, "step", Int("steps"), func(Register) {
		s.Store(s.Mul(sigmoid.SiLU(s.Load(at(z))), at(y)), at(out))
		ADDQ(outStride, out)
		ADDQ(yStride, y)
		ADDQ(zStride, z)
	})
	End()
}
