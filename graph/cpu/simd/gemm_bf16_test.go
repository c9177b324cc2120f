package simd

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// eachBF16 runs test on every level, and also with AVX512-BF16 if the CPU has it.
func eachBF16(t *testing.T, test func(t *testing.T)) {
	eachLevel(t, func(t *testing.T) {
		defer ForceBF16(false)()
		test(t)
	})
	t.Run(withBF16, func(t *testing.T) {
		if !HasBF16() {
			t.Skip("this CPU has no AVX512-BF16")
		}
		defer Force(AVX512)()
		defer ForceBF16(true)()
		test(t)
	})
}

// bf16Case is a gemmCase whose B may also be stored in bfloat16. exact is the case with the inputs
// that are actually multiplied.
type bf16Case struct {
	*gemmCase
	b16   []uint16
	exact *gemmCase
}

func newBF16Case(g Gemm, workers int) *bf16Case {
	c := &bf16Case{gemmCase: newGemmCase(g, workers)}
	c.b16 = make([]uint16, len(c.b))
	for i, x := range c.b {
		roundPortable(c.b[i:i+1], []float32{x})
		c.b16[i] = uint16(math.Float32bits(c.b[i]) >> 16)
	}
	e := *c.gemmCase
	e.a = slices.Clone(e.a)
	if g.RoundFactors {
		roundPortable(e.a, e.a)
	}
	if !g.BF16B { // so that B, too, has bits to round off
		for i := range c.b {
			c.b[i] *= 1 + 0x1p-10
		}
		e.b = slices.Clone(c.b)
		roundPortable(e.b, e.b)
	}
	c.exact = &e
	return c
}

func (c *bf16Case) bind(p Pool) func() {
	if c.BF16B {
		return c.BindBF16(p, c.a, c.b16, c.c, c.scratch)
	}
	return c.Bind(p, c.a, c.b, c.c, c.scratch)
}

// bf16Forms are the forms of a product that involve bfloat16.
var bf16Forms = []Gemm{{RoundFactors: true}, {RoundFactors: true, BF16B: true}, {BF16B: true}}

// TestGemmBF16 compares with float64 products of the rounded inputs, for one worker and for three,
// whose results must be bit-identical.
func TestGemmBF16(t *testing.T) {
	sizes := append(slices.Clone(gemmSizes), [3]int{40, 33, 1601}, [3]int{250, 130, 400})
	eachBF16(t, func(t *testing.T) {
		p := workers(t, 3)
		for i, size := range sizes {
			eachTranspose(size, func(g Gemm) {
				form := bf16Forms[(i+size[0])%len(bf16Forms)]
				g.RoundFactors, g.BF16B = form.RoundFactors, form.BF16B
				if i%2 == 1 {
					g.LDA, g.LDB, g.LDC = 1, 5, 3
				}
				c := newBF16Case(g, 1)
				before := slices.Clone(c.aroundC)
				c.bind(Serial{})()
				c.exact.check(t, before)

				shared := newBF16Case(g, 3)
				shared.bind(p)()
				if !sameBits(c.c, shared.c) {
					t.Fatalf("%s: three workers gave other bits than one", c)
				}
			})
		}
	})
}

// TestRoundToBF16 compares the levels' rounding with the definition, bit for bit: ties, carries into the
// exponent, infinities, and numbers of every size.
func TestRoundToBF16(t *testing.T) {
	bits := []uint32{0, 1 << 31, 0x3f808000, 0x3f818000, 0x3f80_8001, 0x3fff8000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f7f7fff, 1}
	for i := uint32(0); i < 2000; i++ {
		bits = append(bits, i*2654435761)
	}
	src, want := make([]float32, len(bits)), make([]float32, len(bits))
	for i, b := range bits {
		src[i] = math.Float32frombits(b)
	}
	roundPortable(want, src)
	if !math.IsNaN(float64(round1(math.Float32frombits(0x7fffffff)))) || round1(1+0x1p-8) != 1 || round1(1+3*0x1p-8) != 1+0x1p-6 {
		t.Error("rounding is not to nearest even, or loses NaN")
	}
	eachLevel(t, func(t *testing.T) {
		defer ForceBF16(false)()
		got := make([]float32, len(src))
		roundingKernelsOf(Active()).narrow(got, src, 1, len(src))
		for i := range got {
			if g, w := math.Float32bits(got[i]), math.Float32bits(want[i]); g != w && (src[i] == src[i] || got[i] == got[i]) {
				t.Errorf("%x rounds to %x, want %x", bits[i], g, w)
			}
		}
	})
}

func round1(x float32) float32 {
	y := []float32{x}
	roundPortable(y, y)
	return y[0]
}

func TestGemmBF16AllocatesNothing(t *testing.T) {
	eachBF16(t, func(t *testing.T) {
		p := workers(t, 2)
		for _, form := range bf16Forms {
			form.M, form.N, form.K = 120, 130, 140
			c := newBF16Case(form, p.Workers())
			product := c.bind(p)
			if n := testing.AllocsPerRun(10, product); n != 0 {
				t.Errorf("%s: the bound product allocates %g times", c, n)
			}
		}
	})
}

func TestBindBF16Refuses(t *testing.T) {
	for _, g := range []Gemm{{BF16B: true}, {}} {
		g.M, g.N, g.K, g.LDA, g.LDB, g.LDC = 20, 30, 40, 40, 30, 30
		t.Run(fmt.Sprint(g.BF16B), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("B in the wrong type did not panic")
				}
			}()
			a, c, scratch := make([]float32, 800), make([]float32, 600), make([]float32, g.Workspace(1))
			if g.BF16B {
				g.Serial(a, make([]float32, 1200), c, scratch)
			} else {
				g.BindBF16(Serial{}, a, make([]uint16, 1200), c, scratch)
			}
		})
	}
}
