package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph/cpu/pool"
)

// workers is a pool of n workers that is closed when the test ends.
func workers(t testing.TB, n int) Pool {
	p := pool.New(n)
	t.Cleanup(p.Close)
	return p
}

func eachLevel(t *testing.T, test func(t *testing.T)) {
	for _, l := range Levels() {
		t.Run(l.String(), func(t *testing.T) {
			defer Force(l)()
			test(t)
		})
	}
}

// gemmCase is a product with random operands, surrounded by NaNs, which also fill the gaps between
// rows.
type gemmCase struct {
	Gemm
	a, b, c []float32
	scratch []float32
	aroundC []float32 // c with the guard bands on both sides
}

const guard = 64 // elements

// newGemmCase makes operands for g, whose leading dimensions are the number of elements beyond a
// row's length.
func newGemmCase(g Gemm, workers int) *gemmCase {
	rng := rand.New(rand.NewPCG(uint64(g.M)<<40|uint64(g.N)<<20|uint64(g.K), 1))
	nans := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.NaN())
		}
		return x
	}
	matrix := func(rows, cols int, transposed bool, ld *int) (x, around []float32) {
		if transposed {
			rows, cols = cols, rows
		}
		*ld += cols
		n := 0
		if rows > 0 {
			n = (rows-1)**ld + cols
		}
		around = nans(n + 2*guard)
		x = around[guard:][:n:n]
		for r := range rows {
			for c := range cols {
				x[r**ld+c] = float32(rng.NormFloat64())
			}
		}
		return x, around
	}
	c := &gemmCase{Gemm: g}
	c.a, _ = matrix(g.M, g.K, g.TransA, &c.LDA)
	c.b, _ = matrix(g.K, g.N, g.TransB, &c.LDB)
	c.c, c.aroundC = matrix(g.M, g.N, false, &c.LDC)
	if !g.Accumulate {
		copy(c.c, nans(len(c.c)))
	}
	c.scratch = nans(c.Workspace(workers) + 3)[3:] // not aligned to anything
	return c
}

func (c *gemmCase) String() string {
	return fmt.Sprintf("M=%d N=%d K=%d TransA=%t TransB=%t LD=%d,%d,%d Accumulate=%t",
		c.M, c.N, c.K, c.TransA, c.TransB, c.LDA, c.LDB, c.LDC, c.Accumulate)
}

// check compares C with the product in float64; before is aroundC before the product. An element's
// error is at most K+1 roundings of the sum of the terms' magnitudes.
func (c *gemmCase) check(t *testing.T, before []float32) {
	t.Helper()
	at := func(x []float32, i, k, ld int, transposed bool) float64 {
		if transposed {
			i, k = k, i
		}
		return float64(x[i*ld+k])
	}
	for i := range before {
		p := i - guard
		inside := p >= 0 && p < len(c.c) && p%c.LDC < c.N
		if !inside && !sameBits(c.aroundC[i:i+1], before[i:i+1]) {
			t.Fatalf("%s: wrote %g outside of the rows of C, at %d", c, c.aroundC[i], p)
		}
	}
	for i := range c.M {
		for j := range c.N {
			var sum, size float64
			if c.Accumulate {
				sum = float64(before[guard+i*c.LDC+j])
				size = math.Abs(sum)
			}
			for k := range c.K {
				x := at(c.a, i, k, c.LDA, c.TransA) * at(c.b, k, j, c.LDB, c.TransB)
				sum += x
				size += math.Abs(x)
			}
			y := float64(c.c[i*c.LDC+j])
			if bound := float64(c.K+1) * 0x1p-24 * size; !(math.Abs(y-sum) <= bound) {
				t.Fatalf("%s: C[%d %d] = %g, want %g +- %g", c, i, j, y, sum, bound)
			}
		}
	}
}

func sameBits(x, y []float32) bool {
	for i := range x {
		if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
			return false
		}
	}
	return len(x) == len(y)
}

// gemmSizes are M, N, K around the kernels' tiles, panels and blocks.
var gemmSizes = [][3]int{
	{0, 5, 5}, {5, 0, 5}, {5, 5, 0}, {1, 1, 0}, {1, 1, 1}, {1, 1, 300}, {1, 17, 9}, {1, 6, 2000}, {3, 150, 64}, {16, 37, 129}, {9, 11, 400}, {400, 3, 77}, {300, 4, 32}, {1, 200, 33}, {2, 129, 65},
	{3, 64, 16}, {3, 95, 7}, {4, 4, 4}, {6, 16, 8}, {7, 15, 31}, {13, 31, 17}, {14, 32, 256}, {15, 33, 257},
	{28, 64, 64}, {29, 65, 8}, {43, 66, 5}, {64, 64, 64}, {65, 1, 70}, {100, 48, 513}, {101, 37, 40},
	{450, 40, 20}, {17, 4100, 3}, {33, 97, 600},
}

func eachTranspose(size [3]int, do func(g Gemm)) {
	for bits := range 8 {
		do(Gemm{M: size[0], N: size[1], K: size[2],
			TransA: bits&1 != 0, TransB: bits&2 != 0, Accumulate: bits&4 != 0})
	}
}

func TestGemm(t *testing.T) {
	sizes := slices.Clone(gemmSizes)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		sizes = append(sizes, [3]int{1 + rng.IntN(90), 1 + rng.IntN(140), 1 + rng.IntN(300)})
	}
	eachLevel(t, func(t *testing.T) {
		for i, size := range sizes {
			eachTranspose(size, func(g Gemm) {
				if i%2 == 1 {
					g.LDA, g.LDB, g.LDC = 1, 5, 3
				}
				c := newGemmCase(g, 1)
				before := slices.Clone(c.aroundC)
				c.Serial(c.a, c.b, c.c, c.scratch)
				c.check(t, before)
			})
		}
	})
}

// TestGemmWorkers checks that neither the number of workers nor a second call changes a bit. Its
// products are large enough to be shared.
func TestGemmWorkers(t *testing.T) {
	sizes := [][3]int{
		{250, 130, 400}, {60, 1100, 20}, {20, 4130, 15}, {1, 5000, 250}, {2, 3001, 200}, {1200, 3, 300},
		{1500, 40, 20}, {700, 600, 20},
	}
	eachLevel(t, func(t *testing.T) {
		pools := []Pool{Serial{}, workers(t, 2), workers(t, 3), workers(t, 5)}
		for i, size := range sizes {
			eachTranspose(size, func(g Gemm) {
				if g.Accumulate != (i%2 == 0) {
					return
				}
				want := newGemmCase(g, 1)
				want.Serial(want.a, want.b, want.c, want.scratch)
				for _, p := range pools {
					c := newGemmCase(g, p.Workers())
					before := slices.Clone(c.c)
					product := c.Bind(p, c.a, c.b, c.c, c.scratch)
					for range 2 {
						copy(c.c, before)
						product()
						if !sameBits(c.c, want.c) {
							t.Fatalf("%s: %d workers gave other bits than Serial", c, p.Workers())
						}
					}
				}
			})
		}
	})
}

func TestGemmAllocatesNothing(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		p := workers(t, 2)
		for _, g := range []Gemm{
			{M: 120, N: 130, K: 140}, {M: 120, N: 130, K: 140, TransA: true}, {M: 120, N: 130, K: 140, TransB: true},
			{M: 1, N: 300, K: 4000, TransB: true}, {M: 2, N: 300, K: 4000},
		} {
			c := newGemmCase(g, p.Workers())
			product := c.Bind(p, c.a, c.b, c.c, c.scratch)
			if n := testing.AllocsPerRun(10, product); n != 0 {
				t.Errorf("%s: the bound product allocates %g times", c, n)
			}
			if n := testing.AllocsPerRun(10, func() { c.Serial(c.a, c.b, c.c, c.scratch) }); n != 0 {
				t.Errorf("%s: Serial allocates %g times", c, n)
			}
		}
	})
}

func TestGemmRefuses(t *testing.T) {
	good := Gemm{M: 20, N: 30, K: 40, LDA: 40, LDB: 30, LDC: 30}
	for _, c := range []struct {
		name    string
		change  func(g *Gemm)
		a, b, c int // elements that are missing
		scratch int
		want    string
	}{
		{name: "negative", change: func(g *Gemm) { g.K = -1 }, want: "M=20 N=30 K=-1: sizes can't be negative"},
		{name: "short A", a: 1, want: "A has 799 elements, too few for [20 40] with rows 40 apart"},
		{name: "short B", b: 1, want: "B has 1199 elements, too few for [40 30] with rows 30 apart"},
		{name: "short C", c: 1, want: "C has 599 elements, too few for [20 30] with rows 30 apart"},
		{name: "narrow A", change: func(g *Gemm) { g.LDA = 39 }, want: "rows of A are 39 apart and 40 long"},
		{name: "transposed B", change: func(g *Gemm) { g.TransB = true }, want: "rows of B are 30 apart and 40 long"},
		{name: "huge LDC", change: func(g *Gemm) { g.LDC = math.MaxInt / 4 }, want: "C has 600 elements, too few"},
		{name: "scratch", scratch: 1, want: "the workspace has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := good
			if c.change != nil {
				c.change(&g)
			}
			a, b, out := make([]float32, 800-c.a), make([]float32, 1200-c.b), make([]float32, 600-c.c)
			scratch := make([]float32, good.Workspace(1)-c.scratch)
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, c.want) {
					t.Errorf("panic %q, want one with %q", got, c.want)
				}
			}()
			g.Serial(a, b, out, scratch)
		})
	}
}
