package kernel

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Place is the place of one vector in the slices that Slices iterates over: a whole vector, or the
// last elements of the slices, fewer than lanes.
type Place struct {
	s    ISA
	i    Register // byte offset
	disp int
	mask Register // nil for a whole vector
}

// Slices emits body for slices of length n, for vectors at successive places: unroll of them at a
// time, numbered u, then single ones, then the rest. It changes n.
func (s ISA) Slices(n Register, unroll int, body func(p Place, u int)) {
	i := GP64()
	XORQ(i, i)
	if unroll > 1 {
		Loop("unrolled", n, unroll*s.Lanes, func() {
			for u := range unroll {
				body(Place{s: s, i: i, disp: u * s.Bytes()}, u)
			}
			ADDQ(U32(unroll*s.Bytes()), i)
		})
	}
	Loop("single", n, s.Lanes, func() {
		body(Place{s: s, i: i}, 0)
		ADDQ(Imm(uint64(s.Bytes())), i)
	})
	TESTQ(n, n)
	JE(LabelRef("done"))
	body(Place{s: s, i: i, mask: s.firstLanes(n)}, 0)
	Label("done")
}

// firstLanes returns a mask of the first n lanes.
func (s ISA) firstLanes(n Register) Register {
	if s.Wide() {
		bits, mask := GP64(), K()
		MOVQ(n, RCX)
		MOVQ(U32(1), bits)
		SHLQ(CL, bits)
		DECQ(bits)
		KMOVW(bits.As32(), mask)
		return mask
	}
	const name = "laneMasks"
	table, ok := constants[name]
	if !ok {
		table = GLOBL(name, attr.RODATA|attr.NOPTR)
		for i := range 2 * s.Lanes {
			bits := ^uint32(0)
			if i >= s.Lanes {
				bits = 0
			}
			DATA(4*i, U32(bits))
		}
		constants[name] = table
	}
	address, mask := GP64(), YMM()
	LEAQ(table.Offset(4*s.Lanes), address)
	NEGQ(n)
	VMOVUPS(Mem{Base: address, Index: n, Scale: 4}, mask)
	return mask
}

func (p Place) at(base Register) Mem {
	return Mem{Base: base, Index: p.i, Scale: 1, Disp: p.disp}
}

// Load returns the vector of the slice at base. Lanes past the slice's end are 0.
func (p Place) Load(base Register) VecVirtual {
	v := p.s.Vec()
	switch {
	case p.mask == nil:
		VMOVUPS(p.at(base), v)
	case p.s.Wide():
		VMOVUPS_Z(p.at(base), p.mask, v)
	default:
		VMASKMOVPS(p.at(base), p.mask, v)
	}
	return v
}

// Operand returns the vector of the slice at base, as a memory operand if possible.
func (p Place) Operand(base Register) Op {
	if p.mask == nil {
		return p.at(base)
	}
	return p.Load(base)
}

// Store stores v to the slice at base, and nothing past the slice's end.
func (p Place) Store(v Op, base Register) {
	switch {
	case p.mask == nil:
		VMOVUPS(v, p.at(base))
	case p.s.Wide():
		VMOVUPS(v, p.mask, p.at(base))
	default:
		VMASKMOVPS(v, p.mask, p.at(base))
	}
}

// Stream is Store bypassing the caches, for data that nothing reads soon. The slice at base must
// start at a multiple of a vector's size, and SFENCE is needed before another goroutine may see the
// data.
func (p Place) Stream(v Op, base Register) {
	if p.mask == nil {
		VMOVNTPS(v, p.at(base))
		return
	}
	p.Store(v, base)
}

// Only returns v with fill, a register, in the lanes past the slice's end.
func (p Place) Only(v, fill VecVirtual) VecVirtual {
	if p.mask == nil {
		return v
	}
	r := p.s.Load(fill)
	if p.s.Wide() {
		VMOVAPS(v, p.mask, r)
	} else {
		VBLENDVPS(p.mask, v, r, r)
	}
	return r
}

// Repeat emits body in a loop of n iterations, at least one. It changes n.
func Repeat(label string, n Register, body func()) {
	Label(label)
	body()
	DECQ(n)
	JNZ(LabelRef(label))
}

var labels int

// NewLabel returns a unique label.
func NewLabel(name string) string {
	labels++
	return fmt.Sprintf("%s%d", name, labels)
}
