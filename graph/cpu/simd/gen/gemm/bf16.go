package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// widen emits the conversion of bfloat16 numbers to float32, a vector at a time: n is a multiple of
// the lanes.
func widen(s isa) {
	name := "gemmWiden" + s.name
	TEXT(name, NOSPLIT, "func(dst *float32, src *uint16, n int)")
	Doc(fmt.Sprintf("%s writes n bfloat16s as float32s, %d at a time.", name, s.lanes))
	Pragma("noescape")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	x := s.reg()
	VPMOVZXWD(Mem{Base: src}, x)
	VPSLLD(Imm(16), x, x)
	VMOVUPS(x, Mem{Base: dst})
	ADDQ(Imm(uint64(s.bytes()/2)), src)
	ADDQ(Imm(uint64(s.bytes())), dst)
	SUBQ(Imm(uint64(s.lanes)), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// round emits the rounding of float32 numbers to bfloat16, to nearest even, a vector at a time. NaN
// stays NaN.
func round(s isa) {
	name := "gemmRound" + s.name
	TEXT(name, NOSPLIT, "func(dst, src *float32, n int)")
	Doc(fmt.Sprintf("%s rounds n float32s to bfloat16, %d at a time.", name, s.lanes))
	Pragma("noescape")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	constant := func(bits uint32) VecVirtual {
		x, r := s.reg(), GP32()
		MOVL(U32(bits), r)
		low := XMM()
		VMOVD(r, low)
		VPBROADCASTD(low, x)
		return x
	}
	one, half, high := constant(1), constant(0x7fff), constant(0xffff0000)
	Label("loop")
	x, y := s.reg(), s.reg()
	VMOVUPS(Mem{Base: src}, x)
	VPSRLD(Imm(16), x, y)
	if s.masked {
		nan := K()
		VCMPPS(Imm(3), x, x, nan) // unordered with itself
		VPANDD(one, y, y)
		VPADDD(half, y, y)
		VPADDD(x, y, y)
		VPANDD(high, y, y)
		VMOVAPS(x, nan, y)
	} else {
		nan := s.reg()
		VCMPPS(Imm(3), x, x, nan)
		VPAND(one, y, y)
		VPADDD(half, y, y)
		VPADDD(x, y, y)
		VPAND(high, y, y)
		VBLENDVPS(nan, x, y, y)
	}
	VMOVUPS(y, Mem{Base: dst})
	ADDQ(Imm(uint64(s.bytes())), src)
	ADDQ(Imm(uint64(s.bytes())), dst)
	SUBQ(Imm(uint64(s.lanes)), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// pairs emits the conversion of a float32 panel to a panel of pairs: from two steps over K, each of
// width float32 numbers, it makes width elements, with the first step in the low half.
func pairs() {
	TEXT("gemmPairsBF16", NOSPLIT, "func(dst, src *float32, width, n int)")
	Doc("gemmPairsBF16 rounds 2*n rows of width float32s, 1 to 32, to n rows of width pairs of bfloat16s.")
	Pragma("noescape")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	width, n := Load(Param("width"), GP64()), Load(Param("n"), GP64())
	row := GP64()
	LEAQ(Mem{Base: width, Index: width, Scale: 1}, row)
	SHLQ(Imm(1), row)
	// The masks of the first and of the second 16 lanes.
	bits, ones := GP64(), GP64()
	MOVQ(width, RCX)
	MOVQ(U32(1), ones)
	MOVQ(ones, bits)
	SHLQ(CL, bits)
	SUBQ(ones, bits)
	masks := []Register{K(), K()}
	KMOVW(bits.As32(), masks[0])
	SHRQ(Imm(16), bits)
	KMOVW(bits.As32(), masks[1])
	one := func(v int) {
		m := func(base Register, index Register) Mem {
			if index == nil {
				return Mem{Base: base, Disp: 64 * v}
			}
			return Mem{Base: base, Index: index, Scale: 1, Disp: 64 * v}
		}
		x, y := ZMM(), ZMM()
		VMOVUPS_Z(m(src, nil), masks[v], x)
		VMOVUPS_Z(m(src, row), masks[v], y)
		VCVTNEPS2BF16(x, x.AsY())
		VCVTNEPS2BF16(y, y.AsY())
		VPMOVZXWD(x.AsY(), x)
		VPMOVZXWD(y.AsY(), y)
		VPSLLD(Imm(16), y, y)
		VPORD(x, y, y)
		VMOVDQU32(y, masks[v], m(dst, nil))
	}
	next := func() {
		LEAQ(Mem{Base: src, Index: row, Scale: 2}, src)
		ADDQ(row, dst)
		DECQ(n)
	}
	CMPQ(width, Imm(16))
	JG(LabelRef("wide"))
	Label("narrow")
	one(0)
	next()
	JNZ(LabelRef("narrow"))
	VZEROUPPER()
	RET()
	Label("wide")
	one(0)
	one(1)
	next()
	JNZ(LabelRef("wide"))
	VZEROUPPER()
	RET()
}

// Neither avo nor Go's assembler knows the instructions of AVX512-BF16. They are inserted by name,
// so that avo allocates registers for them, and encodeBF16 replaces them by their bytes.
const (
	dotPairs = "VDPBF16PS"
	toBF16   = "VCVTNEPS2BF16"
)

// VDPBF16PS adds the products of the bfloat16 pairs of a and b to sum.
func VDPBF16PS(b, a, sum Op) {
	Instruction(&ir.Instruction{Opcode: dotPairs, Operands: []Op{b, a, sum}, Inputs: []Op{b, a, sum}, Outputs: []Op{sum}, ISA: []string{"AVX512_BF16"}})
}

// VCVTNEPS2BF16 rounds a vector of float32 to one of bfloat16, half as long.
func VCVTNEPS2BF16(x, y Op) {
	Instruction(&ir.Instruction{Opcode: toBF16, Operands: []Op{x, y}, Inputs: []Op{x}, Outputs: []Op{y}, ISA: []string{"AVX512_BF16"}})
}

// encodeBF16 replaces the instructions of AVX512-BF16 by their bytes.
func encodeBF16(f *ir.Function) error {
	var nodes []ir.Node
	for _, n := range f.Nodes {
		i, ok := n.(*ir.Instruction)
		if !ok || i.Opcode != dotPairs && i.Opcode != toBF16 {
			nodes = append(nodes, n)
			continue
		}
		r := make([]int, len(i.Operands))
		for k, o := range i.Operands {
			r[k] = int(o.(Physical).PhysicalIndex())
		}
		var code uint64
		if i.Opcode == dotPairs {
			code = evex(0x52, r[2], r[1], r[0])
		} else {
			code = evex(0x72, r[1], 0, r[0])
		}
		nodes = append(nodes,
			&ir.Instruction{Opcode: "LONG", Operands: []Op{U32(code)}},
			&ir.Instruction{Opcode: "WORD", Operands: []Op{U16(code >> 32)}})
	}
	f.Nodes = nodes
	return nil
}

// evex encodes EVEX.512.F3.0F38.W0 opcode of vector registers, without a mask: 6 bytes, the first
// one lowest. x is 0 if the instruction has no second source. Intel, Software Developer's Manual,
// volume 2, 2.7.
func evex(opcode uint64, to, x, y int) uint64 {
	not := func(r, bit int) uint64 { return uint64(r>>bit&1 ^ 1) }
	return 0x62 |
		(not(to, 3)<<7|not(y, 4)<<6|not(y, 3)<<5|not(to, 4)<<4|0b010)<<8 |
		(uint64(^x&15)<<3|0b110)<<16 |
		(0b10<<5|not(x, 4)<<3)<<24 |
		opcode<<32 |
		uint64(0b11<<6|to&7<<3|y&7)<<40
}
