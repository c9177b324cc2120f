package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// scanCase is a selective scan in float64: its operands and, after forward and backward, its
// results.
type scanCase struct {
	T, D, N          int
	u, dt, z         []float64 // [T][D]; z is nil if not gated
	b, c             []float64 // [T][N]
	a                []float64 // [N][D]
	skip, bias       []float64 // [D]
	h0               []float64 // [N][D]
	dy               []float64 // [T][D]
	y, last          []float64
	du, ddt, dz      []float64
	db, dc           []float64
	da, dskip, dbias []float64
}

func newScanCase(seed uint64, T, D, N int, gated bool) *scanCase {
	r := rand.New(rand.NewPCG(seed, 1))
	draw := func(n int, f func() float64) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(float32(f())) // exact in float32
		}
		return x
	}
	s := &scanCase{T: T, D: D, N: N}
	s.u, s.dy = draw(T*D, r.NormFloat64), draw(T*D, r.NormFloat64)
	s.dt = draw(T*D, func() float64 { return 2 * r.NormFloat64() })
	s.b, s.c = draw(T*N, r.NormFloat64), draw(T*N, r.NormFloat64)
	s.a = draw(N*D, func() float64 { return -math.Exp(1.5 * r.NormFloat64()) })
	s.skip = draw(D, r.NormFloat64)
	s.bias = draw(D, func() float64 { return -3 + r.NormFloat64() })
	s.h0 = draw(N*D, r.NormFloat64)
	if gated {
		s.z = draw(T*D, func() float64 { return 2 * r.NormFloat64() })
	}
	return s
}

func sigmoid64(x float64) float64  { return 1 / (1 + math.Exp(-x)) }
func softplus64(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }
func silu64(x float64) float64     { return x * sigmoid64(x) }
func siluSlope64(x float64) float64 {
	s := sigmoid64(x)
	return s + x*s*(1-s)
}

// forward evaluates ScanArgs' formulas channel by channel and returns every h[t,n,c], [T+1][N][D].
func (s *scanCase) forward() []float64 {
	h := make([]float64, (s.T+1)*s.N*s.D)
	copy(h, s.h0)
	s.y = make([]float64, s.T*s.D)
	for t := range s.T {
		for c := range s.D {
			p := t*s.D + c
			delta := softplus64(s.dt[p] + s.bias[c])
			y := s.skip[c] * s.u[p]
			for n := range s.N {
				q := n*s.D + c
				v := math.Exp(delta*s.a[q])*h[t*s.N*s.D+q] + delta*s.b[t*s.N+n]*s.u[p]
				h[(t+1)*s.N*s.D+q] = v
				y += v * s.c[t*s.N+n]
			}
			if s.z != nil {
				y *= silu64(s.z[p])
			}
			s.y[p] = y
		}
	}
	s.last = h[s.T*s.N*s.D:]
	return h
}

// backward is the derivative of sum(dy * Y), by the chain rule through forward's steps.
func (s *scanCase) backward() {
	h := s.forward()
	s.du, s.ddt, s.dz = make([]float64, s.T*s.D), make([]float64, s.T*s.D), make([]float64, s.T*s.D)
	s.db, s.dc = make([]float64, s.T*s.N), make([]float64, s.T*s.N)
	s.da, s.dskip, s.dbias = make([]float64, s.N*s.D), make([]float64, s.D), make([]float64, s.D)
	for c := range s.D {
		dh := make([]float64, s.N) // the gradient of h[t] from later timesteps
		for t := s.T - 1; t >= 0; t-- {
			p := t*s.D + c
			x := s.dt[p] + s.bias[c]
			delta, g := softplus64(x), s.dy[p]
			if s.z != nil {
				y := s.skip[c] * s.u[p]
				for n := range s.N {
					y += h[((t+1)*s.N+n)*s.D+c] * s.c[t*s.N+n]
				}
				s.dz[p] = g * y * siluSlope64(s.z[p])
				g *= silu64(s.z[p])
			}
			s.dskip[c] += g * s.u[p]
			s.du[p] = g * s.skip[c]
			ddelta := 0.0
			for n := range s.N {
				a, b, before := s.a[n*s.D+c], s.b[t*s.N+n], h[(t*s.N+n)*s.D+c]
				e := math.Exp(delta * a)
				s.dc[t*s.N+n] += g * h[((t+1)*s.N+n)*s.D+c]
				dh[n] += g * s.c[t*s.N+n]
				s.db[t*s.N+n] += dh[n] * delta * s.u[p]
				s.du[p] += dh[n] * delta * b
				ddelta += dh[n] * (a*e*before + b*s.u[p])
				s.da[n*s.D+c] += dh[n] * delta * e * before
				dh[n] *= e
			}
			s.ddt[p] = ddelta * sigmoid64(x)
			s.dbias[c] += s.ddt[p]
		}
	}
}

func (s *scanCase) loss() float64 {
	s.forward()
	sum := 0.0
	for i, y := range s.y {
		sum += y * s.dy[i]
	}
	return sum
}

// TestScanReference compares the float64 gradients that the kernels are tested against with central
// differences.
func TestScanReference(t *testing.T) {
	for _, gated := range []bool{false, true} {
		s := newScanCase(7, 5, 3, 2, gated)
		s.backward()
		operands := []struct {
			name    string
			x, grad []float64
		}{
			{"u", s.u, s.du}, {"dt", s.dt, s.ddt}, {"z", s.z, s.dz}, {"B", s.b, s.db}, {"C", s.c, s.dc},
			{"A", s.a, s.da}, {"D", s.skip, s.dskip}, {"dt_bias", s.bias, s.dbias},
		}
		for _, o := range operands {
			for i := range o.x {
				const step = 1e-6
				x := o.x[i]
				o.x[i] = x + step
				up := s.loss()
				o.x[i] = x - step
				down := s.loss()
				o.x[i] = x
				if d := (up - down) / (2 * step); !(math.Abs(d-o.grad[i]) <= 1e-7*(1+math.Abs(d))) {
					t.Errorf("gated %v: d%s[%d] = %g, central difference %g", gated, o.name, i, o.grad[i], d)
				}
			}
		}
	}
}

// spread stores rows of n columns with a stride, at an odd offset, between guard values.
type spread struct {
	g guarded
	Rows
	t, n int
}

func newSpread(x []float64, t, n, gap int) spread {
	s := spread{t: t, n: n}
	stride := n + gap
	s.g = newGuarded(max(0, (t-1)*stride+n))
	for i := range s.g.x {
		s.g.x[i] = guardValue
	}
	s.Rows = Rows{s.g.x, stride}
	for i := range t {
		for j := range n {
			v := float32(math.NaN())
			if x != nil {
				v = float32(x[i*n+j])
			}
			s.g.x[i*stride+j] = v
		}
	}
	return s
}

// values returns the rows without their gaps, after checking that the gaps are untouched.
func (s spread) values(t *testing.T, name string) []float32 {
	t.Helper()
	s.g.check(t, name)
	var out []float32
	for i := range s.t {
		out = append(out, s.row(i, 0, s.n)...)
		if i+1 < s.t {
			for _, v := range s.g.x[i*s.Stride+s.n : (i+1)*s.Stride] {
				if v != guardValue {
					t.Fatalf("%s: gap after row %d overwritten", name, i)
				}
			}
		}
	}
	return out
}

func to32(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func (s *scanCase) args() (*ScanArgs, spread) {
	y := newSpread(nil, s.T, s.D, 4)
	a := &ScanArgs{
		T: s.T, Channels: s.D, N: s.N,
		U: newSpread(s.u, s.T, s.D, 3).Rows, Dt: newSpread(s.dt, s.T, s.D, 1).Rows,
		B: newSpread(s.b, s.T, s.N, 5).Rows, C: newSpread(s.c, s.T, s.N, 2).Rows,
		A: to32(s.a), D: to32(s.skip), DtBias: to32(s.bias),
		Y: y.Rows, State: to32(s.h0),
		Saved: make([]float32, ScanSavedSize(s.T, s.D, s.N)),
	}
	if s.z != nil {
		a.Z = newSpread(s.z, s.T, s.D, 7).Rows
	}
	return a, y
}

func scanRanges(d int, f func(c0, c1 int)) {
	for c0 := 0; c0 < d; c0 += 40 {
		f(c0, min(c0+40, d))
	}
}

var scanShapes = []struct{ T, D, N int }{
	{1, 1, 1}, {1, 16, 16}, {3, 7, 2}, {31, 15, 3}, {32, 16, 16}, {33, 17, 16}, {64, 32, 8}, {65, 33, 5},
	{100, 40, 16}, {70, 95, 6}, {40, 20, 64}, {0, 16, 16},
}

func TestScan(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for i, shape := range scanShapes {
			for _, gated := range []bool{false, true} {
				t.Run(fmt.Sprintf("T=%d,D=%d,N=%d,gated=%v", shape.T, shape.D, shape.N, gated), func(t *testing.T) {
					s := newScanCase(uint64(i), shape.T, shape.D, shape.N, gated)
					s.backward()
					testScanCase(t, s)
				})
			}
		}
	})
}

// TestScanExtremes: decays and deltas that underflow.
func TestScanExtremes(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		s := newScanCase(99, 50, 19, 5, true)
		for i := range s.dt {
			s.dt[i] = float64(float32(s.dt[i] * 30))
			s.z[i] = float64(float32(s.z[i] * 40))
		}
		s.backward()
		testScanCase(t, s)
	})
}

// TestScanParts: the results are bit-identical however a sequence is divided into calls, as prefill
// and decoding do, and however the channels are divided.
func TestScanParts(t *testing.T) {
	s := newScanCase(3, 75, 37, 3, true)
	eachLevel(t, func(t *testing.T) {
		whole, wholeY := s.args()
		scratch := make([]float32, max(ScanForwardScratch(s.D, s.N), ScanBackwardScratch(s.D, s.N)))
		ScanForward(whole, 0, s.D, scratch)

		parts, partsY := s.args()
		parts.Saved = nil
		for _, cut := range [][2]int{{0, 1}, {1, 2}, {2, 40}, {40, 41}, {41, 75}} {
			a := *parts
			a.T = cut[1] - cut[0]
			a.U, a.Dt, a.Z, a.B, a.C, a.Y = a.U.from(cut[0]), a.Dt.from(cut[0]), a.Z.from(cut[0]), a.B.from(cut[0]), a.C.from(cut[0]), a.Y.from(cut[0])
			for c0 := 0; c0 < s.D; c0 += 9 {
				ScanForward(&a, c0, min(c0+9, s.D), scratch)
			}
		}
		if !sameBits(wholeY.values(t, "Y"), partsY.values(t, "Y in parts")) {
			t.Error("Y differs")
		}
		if !sameBits(whole.State, parts.State) {
			t.Error("State differs")
		}

		backward := func(step int) [][]float32 {
			du, ddt, dz := newSpread(nil, s.T, s.D, 0), newSpread(nil, s.T, s.D, 0), newSpread(nil, s.T, s.D, 0)
			g := &ScanGrads{
				DY: newSpread(s.dy, s.T, s.D, 5).Rows, DU: du.Rows, DDt: ddt.Rows, DZ: dz.Rows,
				DB: Rows{make([]float32, s.T*s.N), s.N}, DC: Rows{make([]float32, s.T*s.N), s.N},
				DA: make([]float32, s.N*s.D), DD: make([]float32, s.D), DDtBias: make([]float32, s.D),
			}
			for c0 := 0; c0 < s.D; c0 += step {
				ScanBackward(whole, g, c0, min(c0+step, s.D), scratch)
			}
			return [][]float32{du.values(t, "du"), ddt.values(t, "ddt"), dz.values(t, "dz"), g.DA, g.DD, g.DDtBias}
		}
		want, got := backward(s.D), backward(7)
		for i, name := range []string{"du", "ddt", "dz", "dA", "dD", "dDtBias"} {
			if !sameBits(want[i], got[i]) {
				t.Errorf("%s differs", name)
			}
		}
	})
}

// TestScanNaN: a NaN stays in its channel, and appears in everything that depends on it.
func TestScanNaN(t *testing.T) {
	const bad, from = 5, 40
	eachLevel(t, func(t *testing.T) {
		s := newScanCase(4, 70, 21, 4, true)
		s.u[from*s.D+bad] = math.NaN()
		a, y := s.args()
		ScanForward(a, 0, s.D, make([]float32, ScanForwardScratch(s.D, s.N)))
		for i, v := range y.values(t, "Y") {
			if isNaN, want := v != v, i%s.D == bad && i/s.D >= from; isNaN != want {
				t.Fatalf("Y[%d,%d] = %g", i/s.D, i%s.D, v)
			}
		}
	})
}

func testScanCase(t *testing.T, s *scanCase) {
	a, y := s.args()
	scratch := newGuarded(max(ScanForwardScratch(40, s.N), ScanBackwardScratch(40, s.N)))
	scanRanges(s.D, func(c0, c1 int) { ScanForward(a, c0, c1, scratch.x) })
	scratch.check(t, "forward scratch")
	checkScaled(t, "y", y.values(t, "y"), s.y, 2e-6)
	checkScaled(t, "last state", a.State, s.last, 2e-6)

	du, ddt, dz := newSpread(nil, s.T, s.D, 2), newSpread(nil, s.T, s.D, 6), newSpread(nil, s.T, s.D, 1)
	zeros := make([]float64, s.T*s.N)
	db, dc := newSpread(zeros, s.T, s.N, 3), newSpread(zeros, s.T, s.N, 4)
	da, dd, dbias := guardedCopy(make([]float32, s.N*s.D)), guardedCopy(make([]float32, s.D)), guardedCopy(make([]float32, s.D))
	g := &ScanGrads{
		DY: newSpread(s.dy, s.T, s.D, 5).Rows,
		DU: du.Rows, DDt: ddt.Rows, DB: db.Rows, DC: dc.Rows, DA: da.x, DD: dd.x, DDtBias: dbias.x,
	}
	if s.z != nil {
		g.DZ = dz.Rows
	}
	for i := range scratch.x {
		scratch.x[i] = float32(math.NaN())
	}
	scanRanges(s.D, func(c0, c1 int) { ScanBackward(a, g, c0, c1, scratch.x) })
	scratch.check(t, "backward scratch")
	const tolerance = 5e-6
	checkScaled(t, "du", du.values(t, "du"), s.du, tolerance)
	checkScaled(t, "ddt", ddt.values(t, "ddt"), s.ddt, tolerance)
	if s.z != nil {
		checkScaled(t, "dz", dz.values(t, "dz"), s.dz, tolerance)
	}
	checkScaled(t, "dB", db.values(t, "dB"), s.db, tolerance)
	checkScaled(t, "dC", dc.values(t, "dC"), s.dc, tolerance)
	da.check(t, "dA")
	dd.check(t, "dD")
	dbias.check(t, "dDtBias")
	checkScaled(t, "dA", da.x, s.da, tolerance)
	checkScaled(t, "dD", dd.x, s.dskip, tolerance)
	checkScaled(t, "dDtBias", dbias.x, s.dbias, tolerance)
}
