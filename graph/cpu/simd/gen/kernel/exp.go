package kernel

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// magic is 1.5 * 2^23: adding it to |x| < 2^22 rounds x to an integer, which is then in the sum's
// low bits.
const magic = 12582912

// Polynomials, each with the smallest maximum relative error for coefficients rounded to float32
// one after the other.
var (
	// exp(r) = 1 + r + r^2 q(r) for |r| <= ln(2)/2, to 3.2e-9.
	expCoefficients = []float64{1, 1, 0.49999994, 0.166665167, 0.0416681021, 0.00836919248, 0.0013838897}
	// 2^f = 1 + f q(f) for |f| <= 1/2, to 9.3e-8.
	exp2Coefficients = []float64{1, 0.693147004, 0.240222469, 0.0555071123, 0.00967129506, 0.00132693909}
	// atanh(s)/s = 1 + s^2 q(s^2) for s <= 1/3, to 4.5e-9.
	atanhCoefficients = []float64{1, 0.333332092, 0.200107187, 0.140015125, 0.140033901}
)

func (s ISA) constants(values []float64) []Op {
	c := make([]Op, len(values))
	for i, v := range values {
		c[i] = s.Const(v)
	}
	return c
}

func (s ISA) hoistAll(c []Op) []Op {
	for i := range c {
		c[i] = s.Hoist(c[i])
	}
	return c
}

// Exp holds the constants of exp.
type Exp struct {
	s                         ISA
	c                         []Op
	log2e, ln2Hi, ln2Lo       Op
	least, most, magic, bias2 Op
}

// NewExp prepares exp, before the loop that uses it.
func (s ISA) NewExp() *Exp {
	hi := float64(float32(math.Ln2))
	return &Exp{
		s: s, c: s.hoistAll(s.constants(expCoefficients)),
		log2e: s.Hoist(s.Const(math.Log2E)), ln2Hi: s.Hoist(s.Const(hi)), ln2Lo: s.Hoist(s.Const(math.Ln2 - hi)),
		// exp(-104) rounds to 0 and exp(89) to +Inf; beyond them, including infinities, ln2Hi * n
		// would not cancel x.
		least: s.Hoist(s.Const(-104)), most: s.Hoist(s.Const(89)),
		magic: s.Const(magic), bias2: s.bits(127 << 23),
	}
}

// Of returns exp(x), computed as 2^n exp(r) with r = x - n ln(2), |r| <= ln(2)/2.
func (e *Exp) Of(x Op) VecVirtual {
	return e.reduced(e.s.Min(e.s.Load(e.most), x))
}

// OfNegative returns exp(x) for x <= 0.
func (e *Exp) OfNegative(x Op) VecVirtual { return e.reduced(x) }

func (e *Exp) reduced(x Op) VecVirtual {
	s := e.s
	x = s.Max(s.Load(e.least), x) // this order preserves a NaN in x
	if s.Wide() {
		n := s.Mul(x, e.log2e)
		VRNDSCALEPS(Imm(0), n, n)
		p := e.polynomial(x, n)
		VSCALEFPS(n, p, p)
		return p
	}
	z := s.Load(e.magic)
	s.FMA(z, x, e.log2e)
	n := s.Sub(z, e.magic)
	p := e.polynomial(x, n)
	// n reaches -150, past the exponents of float32, so 2^n is the product of two factors.
	VPSLLD(Imm(23), z, z) // n in the position of the exponent
	half := s.Vec()
	VPSRAD(Imm(24), z, half)
	VPSLLD(Imm(23), half, half)
	VPSUBD(half, z, z)
	VPADDD(e.bias2, half, half)
	VPADDD(e.bias2, z, z)
	s.MulBy(p, half)
	s.MulBy(p, z)
	return p
}

func (e *Exp) polynomial(x, n Op) VecVirtual {
	r := e.s.Load(x)
	e.s.FNMA(r, n, e.ln2Hi)
	e.s.FNMA(r, n, e.ln2Lo)
	return e.s.Horner(r, e.c)
}

// Exp2 holds the constants of a 2^x that is as cheap as possible, for the decays of a scan.
type Exp2 struct {
	s            ISA
	c            []Op
	magic, least Op
}

// NewExp2 prepares 2^x.
func (s ISA) NewExp2() *Exp2 {
	return &Exp2{s: s, c: s.hoistAll(s.constants(exp2Coefficients)), magic: s.Const(magic), least: s.Const(-126)}
}

// Of returns 2^x for x <= 0, and overwrites x. It is exact at 0 and correctly rounded near it,
// where an error would add up over the timesteps that a slowly decaying state remembers. With AVX2
// it is 2^-126 below -126: a state that decays by 1e-38 is gone either way.
func (e *Exp2) Of(x Op) VecVirtual {
	s := e.s
	if s.Wide() {
		f := s.Vec()
		VREDUCEPS(Imm(0), x, f) // x minus the nearest integer
		VSUBPS(f, x, x)
		p := s.Horner(f, e.c)
		VSCALEFPS(x, p, p)
		return p
	}
	VMAXPS(x, s.Load(e.least), x)
	z := s.Add(x, e.magic)
	VSUBPS(s.Sub(z, e.magic), x, x)
	p := s.Horner(x, e.c)
	VPSLLD(Imm(23), z, z)
	VPADDD(z, p, p)
	return p
}

// Sigmoid holds the constants of sigmoid and of functions derived from it.
type Sigmoid struct {
	s         ISA
	exp       *Exp
	one, sign Op
}

// NewSigmoid prepares sigmoid.
func (s ISA) NewSigmoid() *Sigmoid {
	return &Sigmoid{s: s, exp: s.NewExp(), one: s.Hoist(s.Const(1)), sign: s.bits(1 << 31)}
}

// expNegAbs returns exp(-|x|).
func (g *Sigmoid) expNegAbs(x Op) VecVirtual {
	return g.exp.OfNegative(g.s.Or(x, g.sign))
}

// choose returns ifNegative in the lanes where x has a minus sign, and 1 in the others.
func (g *Sigmoid) choose(x, ifNegative Op) VecVirtual {
	s := g.s
	r := s.Load(g.one)
	if s.Wide() {
		negative := K()
		VPMOVD2M(x, negative)
		VMOVAPS(ifNegative, negative, r)
	} else {
		VBLENDVPS(x, ifNegative, r, r)
	}
	return r
}

// of returns sigmoid(x) given e = exp(-|x|): 1/(1+e) or e/(1+e), whichever does not cancel.
func (g *Sigmoid) of(x, e Op) VecVirtual {
	return g.s.Div(g.choose(x, e), g.s.Add(e, g.one))
}

// Of returns sigmoid(x).
func (g *Sigmoid) Of(x Op) VecVirtual { return g.of(x, g.expNegAbs(x)) }

// Both returns sigmoid(x) and sigmoid(-x), which is 1 - sigmoid(x) without cancellation.
func (g *Sigmoid) Both(x Op) (sigmoid, rest VecVirtual) {
	s := g.s
	e := g.expNegAbs(x)
	r := s.Div(s.Load(g.one), s.Add(e, g.one))
	return s.Mul(g.choose(x, e), r), s.Mul(g.choose(s.Sub(s.Zero(), x), e), r)
}

// SiLU returns x sigmoid(x).
func (g *Sigmoid) SiLU(x Op) VecVirtual { return g.s.Mul(g.Of(x), x) }

// SiLUSlope returns sigmoid(x) and the derivative of x sigmoid(x), s + x s (1-s), where
// s (1-s) is e / (1+e)^2 with e = exp(-|x|), as 1-s would cancel for large x.
func (g *Sigmoid) SiLUSlope(x Op) (sigmoid, slope VecVirtual) {
	s := g.s
	e := g.expNegAbs(x)
	r := s.Div(s.Load(g.one), s.Add(e, g.one))
	sigmoid = s.Mul(g.choose(x, e), r)
	slope = s.Load(sigmoid)
	s.MulBy(e, r)
	s.MulBy(e, r)
	s.FMA(slope, e, x)
	return sigmoid, slope
}

// Softplus holds the constants of softplus.
type Softplus struct {
	*Sigmoid
	two Op
	c   []Op
}

// NewSoftplus prepares softplus.
func (s ISA) NewSoftplus() *Softplus {
	return &Softplus{s.NewSigmoid(), s.Const(2), s.constants(atanhCoefficients)}
}

// Of returns softplus(x) = max(x, 0) + log(1 + e) with e = exp(-|x|), where log(1+e) = 2 atanh(e / (2+e)).
func (p *Softplus) Of(x Op) VecVirtual { return p.of(x, p.expNegAbs(x)) }

// WithSlope returns softplus(x) and its derivative, sigmoid(x).
func (p *Softplus) WithSlope(x Op) (softplus, sigmoid VecVirtual) {
	e := p.expNegAbs(x)
	return p.of(x, e), p.Sigmoid.of(x, e)
}

func (p *Softplus) of(x, e Op) VecVirtual {
	s := p.s
	w := s.Div(e, s.Add(e, p.two))
	q := s.Horner(s.Mul(w, w), p.c)
	s.MulBy(q, s.Add(w, w))
	return s.Add(q, s.Max(s.Zero(), x))
}
