package optest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// kernel compares the CPU kernel with the reference.
func kernel(t *testing.T, r *graph.Resolved, in []graph.Array) {
	t.Helper()
	after, out := Expected(r, in)
	for _, level := range simd.Levels() {
		restore := simd.Force(level)
		for _, pad := range []int{0, 5} {
			var first *run
			for _, workers := range []int{1, 2, 3} {
				name := fmt.Sprintf("%s (%v, row padding %d, %d workers)", r.Spec.Name, level, pad, workers)
				got := bindRun(r, in, pad, workers)
				got.kernel()
				if workers == 1 {
					first = got
					got.compare(t, name, r, after, out)
				} else if !slices.EqualFunc(first.memory, got.memory, sameBits) {
					t.Errorf("%s: other bits than with 1 worker", name)
				}
			}
			if pad == 0 && !r.Spec.Allocates && !slices.ContainsFunc(r.In, func(o graph.Operand) bool { return o.Updated }) {
				if n := testing.AllocsPerRun(2, first.kernel); n != 0 {
					t.Errorf("%s (%v): %v allocations a run", r.Spec.Name, level, n)
				}
			}
		}
		restore()
	}
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// guard is the content of memory that a kernel must not touch: a NaN with a payload.
var guard = math.Float32frombits(0x7fc5a5a5)

// run is a kernel bound to guarded buffers. Outputs start as NaN.
type run struct {
	kernel  func()
	memory  [][]float32 // each operand with its guard bands
	in, out []graph.Buffer
}

const band = 32

func bindRun(r *graph.Resolved, in []graph.Array, pad, workers int) *run {
	g := &run{}
	make1 := func(o graph.Operand, data []float64) graph.Buffer {
		b := graph.Buffer{Rows: o.Shape.Rows(), Cols: o.Shape.Cols()}
		b.Stride = b.Cols
		if o.Strided {
			b.Stride += pad
		}
		n := (b.Rows-1)*b.Stride + b.Cols
		if o.DType == graph.Int32 {
			b.I32 = make([]int32, n)
			for i, x := range data {
				b.I32[i] = int32(x)
			}
			return b
		}
		m := make([]float32, n+2*band)
		for i := range m {
			m[i] = guard
		}
		g.memory = append(g.memory, m)
		b.F32 = m[band : band+n : band+n]
		for i := range b.Rows {
			for j, row := 0, b.Row(i); j < b.Cols; j++ {
				row[j] = float32(math.NaN())
				if data != nil {
					row[j] = float32(data[i*b.Cols+j])
				}
			}
		}
		return b
	}
	for i, o := range r.In {
		g.in = append(g.in, make1(o, in[i].Data))
	}
	for _, o := range r.Out {
		g.out = append(g.out, make1(o, nil))
	}
	c := &graph.CPUCall{Dims: r.Dims, In: g.in, Out: g.out, Pool: testPool(workers)}
	if r.Spec.Workspace != nil {
		c.Workspace = make([]float32, r.Spec.Workspace(r.Dims, workers))
		for i := range c.Workspace {
			c.Workspace[i] = float32(math.NaN())
		}
	}
	g.kernel = r.Spec.CPU(c)
	return g
}

// testPool assigns tasks to its workers in turn, on one goroutine: the result of a kernel must not
// depend on it. Races are tested with the executor.
type testPool int

func (p testPool) Workers() int { return int(p) }

func (p testPool) Run(tasks int, task func(task, worker int)) {
	for i := range tasks {
		if p > 1 {
			i = tasks - 1 - i
		}
		task(i, i%int(p))
	}
}

func (g *run) compare(t *testing.T, name string, r *graph.Resolved, after, out []graph.Array) {
	t.Helper()
	for i, o := range r.In {
		if o.DType == graph.Int32 {
			equalInts(t, name+": input "+o.Name, g.in[i], after[i])
		} else {
			limit := 0.0
			if o.Updated {
				limit = Tolerance
			}
			near(t, name+": input "+o.Name, g.in[i], after[i], limit)
		}
	}
	for i, o := range r.Out {
		near(t, name+": output "+o.Name, g.out[i], out[i], Tolerance)
	}
	k := 0
	for _, list := range [][]graph.Buffer{g.in, g.out} {
		for _, b := range list {
			if b.I32 != nil {
				continue
			}
			m := g.memory[k]
			k++
			for i, x := range m {
				at := i - band
				inside := at >= 0 && at < len(b.F32) && at%b.Stride < b.Cols
				if !inside && math.Float32bits(x) != math.Float32bits(guard) {
					t.Fatalf("%s: wrote outside a buffer, at %d of %d", name, at, len(b.F32))
				}
			}
		}
	}
}

// near fails unless max|got-want| <= limit * max|want|.
func near(t *testing.T, name string, got graph.Buffer, want graph.Array, limit float64) {
	t.Helper()
	scale := 0.0
	for _, x := range want.Data {
		scale = math.Max(scale, math.Abs(x))
	}
	for i := range got.Rows {
		for j, x := range got.Row(i) {
			w := want.Data[i*got.Cols+j]
			if d := math.Abs(float64(x) - w); !(d <= limit*scale) {
				t.Errorf("%s: element (%d, %d) is %v, want %v (error %.2g of the largest, %g)", name, i, j, x, w, d/scale, scale)
				return
			}
		}
	}
}

func equalInts(t *testing.T, name string, got graph.Buffer, want graph.Array) {
	t.Helper()
	for i, x := range got.I32 {
		if float64(x) != want.Data[i] {
			t.Errorf("%s: element %d is %d, want %v", name, i, x, want.Data[i])
			return
		}
	}
}
