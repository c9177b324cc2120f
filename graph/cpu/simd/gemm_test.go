package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// testPool is a Pool of n goroutines that live until the test ends.
type testPool struct {
	n     int
	start []chan struct{}
	done  sync.WaitGroup
	next  atomic.Int64
	tasks int
	task  func(task, worker int)
}

func newTestPool(t testing.TB, n int) *testPool {
	p := &testPool{n: n}
	for w := range n {
		start := make(chan struct{}, 1)
		p.start = append(p.start, start)
		go func() {
			for range start {
				for t := int(p.next.Add(1)) - 1; t < p.tasks; t = int(p.next.Add(1)) - 1 {
					p.task(t, w)
				}
				p.done.Done()
			}
		}()
		t.Cleanup(func() { close(start) })
	}
	return p
}

func (p *testPool) Workers() int { return p.n }

func (p *testPool) Run(tasks int, task func(task, worker int)) {
	p.tasks, p.task = tasks, task
	p.next.Store(0)
	p.done.Add(p.n)
	for _, s := range p.start {
		s <- struct{}{}
	}
	p.done.Wait()
}

func eachLevel(t *testing.T, test func(t *testing.T)) {
	for _, l := range Levels() {
		t.Run(l.String(), func(t *testing.T) {
			defer Force(l)()
			test(t)
		})
	}
}

// gemmCase is a product with random operands whose padding between rows is NaN.
type gemmCase struct {
	Gemm
	a, b, c []float32
	scratch []float32
}

func newGemmCase(g Gemm, workers int) *gemmCase {
	rng := rand.New(rand.NewPCG(uint64(g.M)<<40|uint64(g.N)<<20|uint64(g.K), 1))
	matrix := func(rows, cols, ld int) []float32 {
		if rows == 0 {
			return nil
		}
		x := make([]float32, (rows-1)*ld+cols)
		for i := range x {
			x[i] = float32(math.NaN())
			if i%ld < cols {
				x[i] = float32(rng.NormFloat64())
			}
		}
		return x[:len(x):len(x)]
	}
	if g.TransA {
		g.LDA += g.M
	} else {
		g.LDA += g.K
	}
	if g.TransB {
		g.LDB += g.K
	} else {
		g.LDB += g.N
	}
	g.LDC += g.N
	c := &gemmCase{Gemm: g}
	if g.TransA {
		c.a = matrix(g.K, g.M, g.LDA)
	} else {
		c.a = matrix(g.M, g.K, g.LDA)
	}
	if g.TransB {
		c.b = matrix(g.N, g.K, g.LDB)
	} else {
		c.b = matrix(g.K, g.N, g.LDB)
	}
	c.c = matrix(g.M, g.N, g.LDC)
	if !g.Accumulate {
		for i := range c.c {
			c.c[i] = float32(math.NaN())
		}
	}
	c.scratch = make([]float32, g.Workspace(workers))
	for i := range c.scratch {
		c.scratch[i] = float32(math.NaN())
	}
	return c
}

func (c *gemmCase) String() string {
	return fmt.Sprintf("M=%d N=%d K=%d TransA=%t TransB=%t LD=%d,%d,%d Accumulate=%t",
		c.M, c.N, c.K, c.TransA, c.TransB, c.LDA, c.LDB, c.LDC, c.Accumulate)
}

// check compares got with the product in float64, where before is C before the product. An element's
// error is at most (K+1) roundings of the sum of the terms' sizes.
func (c *gemmCase) check(t *testing.T, got, before []float32) {
	t.Helper()
	at := func(x []float32, i, k, ld int, trans bool) float64 {
		if trans {
			i, k = k, i
		}
		return float64(x[i*ld+k])
	}
	for i := range got {
		if i%c.LDC >= c.N && !sameBits(got[i:i+1], before[i:i+1]) {
			t.Fatalf("%s: wrote %g between the rows of C, at %d", c, got[i], i)
		}
	}
	for i := range c.M {
		for j := range c.N {
			var sum, size float64
			if c.Accumulate {
				sum = float64(before[i*c.LDC+j])
				size = math.Abs(sum)
			}
			for k := range c.K {
				x := at(c.a, i, k, c.LDA, c.TransA) * at(c.b, k, j, c.LDB, c.TransB)
				sum += x
				size += math.Abs(x)
			}
			y := float64(got[i*c.LDC+j])
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
	sizes := gemmSizes
	rng := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		sizes = append(sizes, [3]int{1 + rng.IntN(90), 1 + rng.IntN(140), 1 + rng.IntN(300)})
	}
	eachLevel(t, func(t *testing.T) {
		pools := []Pool{Serial{}, newTestPool(t, 2), newTestPool(t, 3), newTestPool(t, 5)}
		for i, size := range sizes {
			eachTranspose(size, func(g Gemm) {
				if i%2 == 1 {
					g.LDA, g.LDB, g.LDC = 1, 5, 3
				}
				c := newGemmCase(g, 1)
				want := append([]float32(nil), c.c...)
				c.Serial(c.a, c.b, want, c.scratch)
				c.check(t, want, c.c)
				for _, p := range pools {
					c := newGemmCase(g, p.Workers())
					c.Bind(p, c.a, c.b, c.c, c.scratch)()
					if !sameBits(c.c, want) {
						t.Fatalf("%s: %d workers gave other bits than Serial", c, p.Workers())
					}
				}
			})
		}
	})
}
