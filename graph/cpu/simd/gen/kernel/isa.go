// Package kernel lets one generator program write a kernel for both vector instruction sets:
// operations on whole float32 vectors that become AVX2 with FMA, or AVX-512, and functions composed
// of them.
package kernel

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// ISA is a vector instruction set.
type ISA struct {
	Name  string // as in function names
	Lanes int    // float32 elements in a vector
	busy  bool
}

// The instruction sets, in the order of simd.Level.
var (
	AVX2   = ISA{Name: "AVX2", Lanes: 8}
	AVX512 = ISA{Name: "AVX512", Lanes: 16}
)

// Each runs emit for every instruction set.
func Each(emit func(s ISA)) {
	emit(AVX2)
	emit(AVX512)
}

// Wide reports whether s is AVX-512: 32 registers of 512 bits, mask registers, and broadcast
// operands.
func (s ISA) Wide() bool { return s.Lanes == 16 }

// Bytes returns the size of a vector.
func (s ISA) Bytes() int { return 4 * s.Lanes }

// Func begins function name+s.Name. signature is without "func".
func (s ISA) Func(name, signature string) {
	full := name + s.Name
	TEXT(full, attr.NOSPLIT, "func"+signature)
	Doc(fmt.Sprintf("%s is %sGo on vectors of %d.", full, name, s.Lanes))
	Pragma("noescape")
}

// End returns from a function.
func End() {
	VZEROUPPER()
	RET()
}

// Vec returns a new vector register.
func (s ISA) Vec() VecVirtual {
	if s.Wide() {
		return ZMM()
	}
	return YMM()
}

// Zero returns a new register of zeros.
func (s ISA) Zero() VecVirtual {
	v := s.Vec()
	s.Clear(v)
	return v
}

// Clear sets v to zeros.
func (s ISA) Clear(v Op) {
	if s.Wide() {
		VPXORD(v, v, v)
	} else {
		VPXOR(v, v, v)
	}
}

// Splat is one float32 in memory that represents a vector with this value in every lane.
type Splat struct{ Mem }

// Ptr returns a register with the pointer of slice parameter name.
func Ptr(name string) Register { return Load(Param(name).Base(), GP64()) }

// Int returns a register with integer parameter name.
func Int(name string) Register { return Load(Param(name), GP64()) }

// ByteStride returns a register with integer parameter name, a number of float32 elements, in
// bytes.
func ByteStride(name string) Register {
	r := Int(name)
	SHLQ(Imm(2), r)
	return r
}

// SplatParam returns a new register with float32 parameter name in all lanes.
func (s ISA) SplatParam(name string) VecVirtual {
	m, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return s.Load(Splat{m.Addr})
}

var constants = map[string]Mem{}

// Const returns a vector of v as a memory operand.
func (s ISA) Const(v float64) Op { return s.bits(math.Float32bits(float32(v))) }

func (s ISA) bits(v uint32) Op {
	name := fmt.Sprintf("splat%08x%s", v, s.Name)
	m, ok := constants[name]
	if !ok {
		m = GLOBL(name, attr.RODATA|attr.NOPTR)
		n := s.Lanes
		if s.Wide() {
			n = 1
		}
		for i := range n {
			DATA(4*i, U32(v))
		}
		constants[name] = m
	}
	if s.Wide() {
		return Splat{m}
	}
	return m
}

// Busy returns s for a loop whose variables take most registers.
func (s ISA) Busy() ISA {
	s.busy = true
	return s
}

// Hoist returns a register with v if s has registers to spare, for the constants of a loop;
// otherwise v.
func (s ISA) Hoist(v Op) Op {
	if s.Wide() && !s.busy {
		return s.Load(v)
	}
	return v
}

// Load returns a new register with src: a vector in memory, a Splat or a register to copy.
func (s ISA) Load(src Op) VecVirtual {
	v := s.Vec()
	s.Set(v, src)
	return v
}

// Set sets v to src.
func (s ISA) Set(v, src Op) {
	switch m := src.(type) {
	case Splat:
		VBROADCASTSS(m.Mem, v)
	case Register:
		VMOVAPS(m, v)
	default:
		VMOVUPS(m, v)
	}
}

// Store stores v to the vector at m.
func (s ISA) Store(v Op, m Mem) { VMOVUPS(v, m) }

type instruction = func(...Op)

// emit emits an instruction whose first operand may be anything that Load accepts.
func (s ISA) emit(plain, broadcast instruction, src Op, rest ...Op) {
	if m, ok := src.(Splat); ok {
		if s.Wide() {
			broadcast(append([]Op{m.Mem}, rest...)...)
			return
		}
		src = s.Load(m)
	}
	plain(append([]Op{src}, rest...)...)
}

// Add returns a + b. The first operand of these functions is a register, the other anything that
// Load accepts.
func (s ISA) Add(a, b Op) VecVirtual { return s.binary(VADDPS, VADDPS_BCST, a, b) }

// Sub returns a - b.
func (s ISA) Sub(a, b Op) VecVirtual { return s.binary(VSUBPS, VSUBPS_BCST, a, b) }

// Mul returns a * b.
func (s ISA) Mul(a, b Op) VecVirtual { return s.binary(VMULPS, VMULPS_BCST, a, b) }

// Div returns a / b.
func (s ISA) Div(a, b Op) VecVirtual { return s.binary(VDIVPS, VDIVPS_BCST, a, b) }

// Max returns the larger of a and b, and b if either is NaN.
func (s ISA) Max(a, b Op) VecVirtual { return s.binary(VMAXPS, VMAXPS_BCST, a, b) }

// Min returns the smaller of a and b, and b if either is NaN.
func (s ISA) Min(a, b Op) VecVirtual { return s.binary(VMINPS, VMINPS_BCST, a, b) }

// Or returns the bitwise or of a and b.
func (s ISA) Or(a, b Op) VecVirtual { return s.binary(VORPS, VORPS_BCST, a, b) }

func (s ISA) binary(plain, broadcast instruction, a, b Op) VecVirtual {
	v := s.Vec()
	s.emit(plain, broadcast, b, a, v)
	return v
}

// AddTo adds b to a.
func (s ISA) AddTo(a, b Op) { s.emit(VADDPS, VADDPS_BCST, b, a, a) }

// MulBy multiplies a by b.
func (s ISA) MulBy(a, b Op) { s.emit(VMULPS, VMULPS_BCST, b, a, a) }

// FMA adds a * b to sum.
func (s ISA) FMA(sum, a, b Op) { s.emit(VFMADD231PS, VFMADD231PS_BCST, b, a, sum) }

// FNMA subtracts a * b from sum.
func (s ISA) FNMA(sum, a, b Op) { s.emit(VFNMADD231PS, VFNMADD231PS_BCST, b, a, sum) }

// MulAdd sets x to x * y + z.
func (s ISA) MulAdd(x, y, z Op) { s.emit(VFMADD213PS, VFMADD213PS_BCST, z, y, x) }

// Sqrt returns the square root of a.
func (s ISA) Sqrt(a Op) VecVirtual {
	v := s.Vec()
	VSQRTPS(a, v)
	return v
}

// SumLanes returns the sum of v's lanes in lane 0.
func (s ISA) SumLanes(v VecVirtual) VecVirtual { return s.foldLanes(v, VADDPS, 1) }

// MaxLanes returns the greatest of v's lanes in lane 0.
func (s ISA) MaxLanes(v VecVirtual) VecVirtual { return s.foldLanes(v, VMAXPS, 1) }

// SumPair returns the sums of v's even and odd lanes in lanes 0 and 1.
func (s ISA) SumPair(v VecVirtual) VecVirtual { return s.foldLanes(v, VADDPS, 2) }

// foldLanes folds v in halves, lane i with lane i + half, until n lanes are left, 1 or 2.
func (s ISA) foldLanes(v VecVirtual, fold instruction, n int) VecVirtual {
	x, high := v.AsX(), XMM()
	if s.Wide() {
		VEXTRACTF64X4(Imm(1), v, high.AsY())
		fold(high.AsY(), v.AsY(), v.AsY())
	}
	VEXTRACTF128(Imm(1), v.AsY(), high)
	fold(high, x, x)
	VPSHUFD(Imm(0b1110), x, high)
	fold(high, x, x)
	if n == 1 {
		VPSHUFD(Imm(0b01), x, high)
		fold(high, x, x)
	}
	return x.(VecVirtual)
}

// FoldPair returns a vector whose even lanes add up to the sum of a, and its odd lanes to that of
// b.
func (s ISA) FoldPair(a, b Op) VecVirtual {
	low, high := s.Vec(), s.Vec()
	VUNPCKLPS(b, a, low)
	VUNPCKHPS(b, a, high)
	s.AddTo(low, high)
	return low
}

// Horner returns the polynomial c[0] + c[1] x + c[2] x^2 + ...
func (s ISA) Horner(x Op, c []Op) VecVirtual {
	n := len(c) - 1
	p := s.Load(c[n])
	for i := n - 1; i >= 0; i-- {
		s.MulAdd(p, x, c[i])
	}
	return p
}

// Loop emits body in a loop that decrements counter by step until less than step is left.
func Loop(label string, counter Register, step int, body func()) {
	end := label + "End"
	CMPQ(counter, Imm(uint64(step)))
	JLT(LabelRef(end))
	Label(label)
	body()
	SUBQ(Imm(uint64(step)), counter)
	CMPQ(counter, Imm(uint64(step)))
	JGE(LabelRef(label))
	Label(end)
}
