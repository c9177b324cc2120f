package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

// unaryFunctions with their definitions in float64. relative bounds the error for every finite
// input whose result is not denormal.
var unaryFunctions = []struct {
	name     string
	f        func(dst, x []float32)
	want     func(x float64) float64
	relative float64
}{
	{"Exp", Exp, math.Exp, 1.2e-7},
	{"Sigmoid", Sigmoid, sigmoid64, 3e-7},
	{"SiLU", SiLU, silu64, 4e-7},
	{"Softplus", Softplus, softplus64, 4e-7},
	{"SiLUGrad", func(dst, x []float32) {
		ones := make([]float32, len(x))
		for i := range ones {
			ones[i] = 1
		}
		SiLUGrad(dst, x, ones)
	}, siluSlope64, math.NaN()}, // crosses zero: its error is absolute
}

var inf = float32(math.Inf(1))

// unaryInputs covers the range of float32 in steps, the neighborhood of each function's bends, and
// special values.
func unaryInputs() []float32 {
	x := []float32{
		0, float32(math.Copysign(0, -1)), 1, -1, 20, 20.000002, 19.999998, 88, -88, 88.7228, 88.73, -87.33655, -87.4,
		104, -104, -103.9, -103.98, 1000, -1000, 1e30, -1e30, math.MaxFloat32, -math.MaxFloat32,
		1e-45, -1e-45, 1e-39, -1e-39, 1.1754944e-38, 1e-8, -1e-8, 0.34657359, -0.34657359, 0.3465736, -0.3465736,
		inf, -inf, float32(math.NaN()),
	}
	for v := float32(-110); v < 110; v += 0.0371 {
		x = append(x, v)
	}
	for v := float32(1e-30); v < 100; v *= 1.37 {
		x = append(x, v, -v)
	}
	return x
}

func TestUnaryAccuracy(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		x := unaryInputs()
		got := make([]float32, len(x))
		for _, f := range unaryFunctions {
			f.f(got, x)
			for i, v := range x {
				want := f.want(float64(v))
				if math.IsInf(float64(v), -1) && (f.name == "SiLU" || f.name == "SiLUGrad") || math.IsInf(float64(v), 1) && f.name == "SiLUGrad" {
					continue // inf * 0: see TestUnaryExtremes
				}
				g := float64(got[i])
				if math.IsNaN(want) || float32(want) == got[i] {
					if math.IsNaN(want) != math.IsNaN(g) {
						t.Errorf("%s(%g) = %g, want %g", f.name, v, g, want)
					}
					continue
				}
				absolute := 3e-45 * (1 + math.Abs(float64(v))) // where sigmoid or exp is denormal
				relative := f.relative
				if math.IsNaN(relative) {
					relative, absolute = 4e-7, 2e-7
				}
				if err := math.Abs(g - want); !(err <= relative*math.Abs(want)+absolute) {
					t.Errorf("%s(%.9g) = %.9g, want %.9g: relative error %.3g", f.name, v, g, want, err/math.Abs(want))
				}
			}
		}
	})
}

func TestUnaryExtremes(t *testing.T) {
	nan := float32(math.NaN())
	cases := []struct {
		name    string
		f       func(dst, x []float32)
		x, want float32
	}{
		{"Exp", Exp, inf, inf}, {"Exp", Exp, -inf, 0}, {"Exp", Exp, nan, nan}, {"Exp", Exp, 0, 1}, {"Exp", Exp, 89, inf}, {"Exp", Exp, -104, 0},
		{"Sigmoid", Sigmoid, inf, 1}, {"Sigmoid", Sigmoid, -inf, 0}, {"Sigmoid", Sigmoid, nan, nan}, {"Sigmoid", Sigmoid, 0, 0.5}, {"Sigmoid", Sigmoid, 104, 1},
		{"SiLU", SiLU, inf, inf}, {"SiLU", SiLU, nan, nan}, {"SiLU", SiLU, 0, 0}, {"SiLU", SiLU, -1000, 0}, {"SiLU", SiLU, 1e30, 1e30},
		{"Softplus", Softplus, inf, inf}, {"Softplus", Softplus, -inf, 0}, {"Softplus", Softplus, nan, nan}, {"Softplus", Softplus, 1e30, 1e30},
	}
	eachLevel(t, func(t *testing.T) {
		for _, c := range cases {
			for _, n := range []int{1, 40} { // in an incomplete vector and in whole ones
				x, got := make([]float32, n), make([]float32, n)
				for i := range x {
					x[i] = c.x
				}
				c.f(got, x)
				for i, g := range got {
					if g != c.want && !(g != g && c.want != c.want) {
						t.Errorf("%s(%g) = %g at %d of %d, want %g", c.name, c.x, g, i, n, c.want)
					}
				}
			}
		}
	})
}

// elementwise are all element-wise functions in one form: dst may hold an input, too, like Axpy's
// y.
var elementwise = []struct {
	name   string
	inputs int
	f      func(dst []float32, in [][]float32)
	want   func(dst float64, in []float64) float64
}{
	{"Exp", 1, func(d []float32, in [][]float32) { Exp(d, in[0]) }, func(_ float64, in []float64) float64 { return math.Exp(in[0]) }},
	{"Sigmoid", 1, func(d []float32, in [][]float32) { Sigmoid(d, in[0]) }, func(_ float64, in []float64) float64 { return sigmoid64(in[0]) }},
	{"SiLU", 1, func(d []float32, in [][]float32) { SiLU(d, in[0]) }, func(_ float64, in []float64) float64 { return silu64(in[0]) }},
	{"Softplus", 1, func(d []float32, in [][]float32) { Softplus(d, in[0]) }, func(_ float64, in []float64) float64 { return softplus64(in[0]) }},
	{"SiLUGrad", 2, func(d []float32, in [][]float32) { SiLUGrad(d, in[0], in[1]) }, func(_ float64, in []float64) float64 { return siluSlope64(in[0]) * in[1] }},
	{"Add", 2, func(d []float32, in [][]float32) { Add(d, in[0], in[1]) }, func(_ float64, in []float64) float64 { return in[0] + in[1] }},
	{"Mul", 2, func(d []float32, in [][]float32) { Mul(d, in[0], in[1]) }, func(_ float64, in []float64) float64 { return in[0] * in[1] }},
	{"MulAdd", 2, func(d []float32, in [][]float32) { MulAdd(d, in[0], in[1]) }, func(d float64, in []float64) float64 { return d + in[0]*in[1] }},
	{"Scale", 1, func(d []float32, in [][]float32) { Scale(d, -1.5, in[0]) }, func(_ float64, in []float64) float64 { return -1.5 * in[0] }},
	{"Axpy", 1, func(d []float32, in [][]float32) { Axpy(-1.5, in[0], d) }, func(d float64, in []float64) float64 { return d - 1.5*in[0] }},
	{"SwiGLU", 2, func(d []float32, in [][]float32) { SwiGLU(d, in[0], in[1]) }, func(_ float64, in []float64) float64 { return silu64(in[0]) * in[1] }},
	{"SoftmaxExp", 1, func(d []float32, in [][]float32) { SoftmaxExp(d, in[0], 0.75) }, func(_ float64, in []float64) float64 { return math.Exp(in[0] - 0.75) }},
	{"SwiGLUGrad.dgate", 3, func(d []float32, in [][]float32) { SwiGLUGrad(d, make([]float32, len(d)), in[0], in[1], in[2]) },
		func(_ float64, in []float64) float64 { return in[2] * in[1] * siluSlope64(in[0]) }},
	{"SwiGLUGrad.dup", 3, func(d []float32, in [][]float32) { SwiGLUGrad(make([]float32, len(d)), d, in[0], in[1], in[2]) },
		func(_ float64, in []float64) float64 { return in[2] * silu64(in[0]) }},
	{"GatedUpdate", 3, func(d []float32, in [][]float32) { GatedUpdate(d, in[0], in[1], in[2]) },
		func(_ float64, in []float64) float64 { return in[0] + sigmoid64(in[1])*(silu64(in[2])-in[0]) }},
	{"GatedUpdateGrad.dx", 4, func(d []float32, in [][]float32) {
		GatedUpdateGrad(d, make([]float32, len(d)), make([]float32, len(d)), in[0], in[1], in[2], in[3])
	}, func(_ float64, in []float64) float64 { return in[3] * sigmoid64(-in[1]) }},
	{"GatedUpdateGrad.dgate", 4, func(d []float32, in [][]float32) {
		GatedUpdateGrad(make([]float32, len(d)), d, make([]float32, len(d)), in[0], in[1], in[2], in[3])
	}, func(_ float64, in []float64) float64 {
		return in[3] * (silu64(in[2]) - in[0]) * sigmoid64(in[1]) * sigmoid64(-in[1])
	}},
	{"GatedUpdateGrad.dh", 4, func(d []float32, in [][]float32) {
		GatedUpdateGrad(make([]float32, len(d)), make([]float32, len(d)), d, in[0], in[1], in[2], in[3])
	}, func(_ float64, in []float64) float64 { return in[3] * sigmoid64(in[1]) * siluSlope64(in[2]) }},
}

func TestRotate(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	eachLevel(t, func(t *testing.T) {
		for _, n := range testLengths {
			x, cos, sin, y := guardedCopy(randomSlice(r, 2*n, 1)), randomSlice(r, n, 1), randomSlice(r, n, 1), newGuarded(2*n)
			want := make([]float64, 2*n)
			for i := range n {
				a, b, c, s := float64(x.x[i]), float64(x.x[n+i]), float64(cos[i]), float64(sin[i])
				want[i], want[n+i] = a*c-b*s, b*c+a*s
			}
			Rotate(y.x, x.x, cos, sin)
			y.check(t, "Rotate")
			checkNear(t, "Rotate", y.x, want, 1e-6, 1e-6)
			Rotate(x.x, x.x, cos, sin)
			x.check(t, "Rotate in place")
			if !sameBits(x.x, y.x) {
				t.Errorf("Rotate of %d pairs differs in place", n)
			}
		}
	})
}

func TestElementwise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachLevel(t, func(t *testing.T) {
		for _, f := range elementwise {
			for _, n := range testLengths {
				dst := guardedCopy(randomSlice(r, n, 1))
				before := append([]float32(nil), dst.x...)
				in := make([][]float32, f.inputs)
				for j := range in {
					in[j] = guardedCopy(randomSlice(r, n, 3)).x
				}
				want := make([]float64, n)
				for i := range want {
					args := make([]float64, f.inputs)
					for j := range args {
						args[j] = float64(in[j][i])
					}
					want[i] = f.want(float64(before[i]), args)
				}
				f.f(dst.x, in)
				dst.check(t, f.name)
				checkNear(t, f.name, dst.x, want, 5e-7, 3e-6)

				// The same bits in place, wherever an element is.
				copy(dst.x, before)
				if f.name != "Axpy" && f.name != "MulAdd" {
					again := guardedCopy(in[0])
					f.f(again.x, append([][]float32{again.x}, in[1:]...))
					f.f(dst.x, in)
					if !sameBits(again.x, dst.x) {
						t.Errorf("%s of %d elements differs in place", f.name, n)
					}
				}
			}
		}
	})
}

// TestElementwiseAnywhere: an element's result depends neither on its position nor on the slice's
// length.
func TestElementwiseAnywhere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n = 150
	eachLevel(t, func(t *testing.T) {
		for _, f := range elementwise {
			in := make([][]float32, f.inputs)
			for j := range in {
				in[j] = randomSlice(r, n, 3)
			}
			whole := make([]float32, n)
			f.f(whole, in)
			for lo := 0; lo < n; lo += 13 {
				part, partIn := make([]float32, n-lo), make([][]float32, f.inputs)
				for j := range in {
					partIn[j] = in[j][lo:]
				}
				f.f(part, partIn)
				if !sameBits(part, whole[lo:]) {
					t.Errorf("%s from element %d on differs", f.name, lo)
				}
			}
		}
	})
}

func TestLengthsPanic(t *testing.T) {
	a, b := make([]float32, 3), make([]float32, 4)
	for name, f := range map[string]func(){
		"Exp": func() { Exp(a, b) }, "Add": func() { Add(a, a, b) }, "Axpy": func() { Axpy(1, a, b) }, "Dot": func() { Dot(a, b) },
		"SwiGLUGrad": func() { SwiGLUGrad(a, a, a, a, b) }, "GatedUpdate": func() { GatedUpdate(a, a, a, b) },
		"Rotate": func() { Rotate(b, b, a, a) }, "Triad": func() { Triad(a, 1, b, a) },
		"SoftmaxExp": func() { SoftmaxExp(a, b, 0) },
		"RMSNormRow": func() { RMSNormRow(a, a, b, 1) }, "AdamW": func() { AdamW(a, a, b, a, &AdamWStep{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s took slices of different lengths", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkElementwise(b *testing.B) {
	const n = 1 << 14 // 64 KiB per slice: the L2 cache's speed
	r := rand.New(rand.NewPCG(5, 6))
	for _, f := range elementwise {
		b.Run(f.name, func(b *testing.B) {
			dst, in := make([]float32, n), make([][]float32, f.inputs)
			for j := range in {
				in[j] = randomSlice(r, n, 3)
			}
			benchLevels(b, func(b *testing.B) {
				for b.Loop() {
					f.f(dst, in)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
			})
		})
	}
}
