package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/pool"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops"
	"github.com/sambatrain/sambatrain/internal/optest"
)

// TestKernelsInPlace: a kernel that may overwrite an input with output 0 gives the same bits when
// it does, forward and backward, for every op of the project.
func TestKernelsInPlace(t *testing.T) {
	workers := pool.New(3)
	defer workers.Close()
	checked := map[string]bool{}
	check := func(r *graph.Resolved, in []graph.Array) {
		for _, k := range r.Spec.InPlace {
			checked[fmt.Sprint(r.Spec.Name, " ", k)] = true
			for _, level := range simd.Levels() {
				restore := simd.Force(level)
				apart, over := runKernel(workers, r, in, -1), runKernel(workers, r, in, k)
				restore()
				for i := range apart {
					for j, x := range apart[i].F32 {
						if math.Float32bits(x) != math.Float32bits(over[i].F32[j]) {
							t.Errorf("%s (%v) over input %d: element %d of output %d is %v, was %v", r.Spec.Name, level, k, j, i, over[i].F32[j], x)
							break
						}
					}
				}
			}
		}
	}
	for _, op := range ops.All() {
		for _, c := range op.Cases() {
			if c.Bench {
				continue
			}
			r, err := c.Spec.ResolveDims(c.Dims)
			if err != nil {
				t.Fatal(err)
			}
			in := optest.Draw(c, r)
			check(r, in)
			if c.Spec.Gradient == nil || op.Name == "add" {
				continue
			}
			back, err := optest.RunBackward(c, r, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range back.Calls {
				check(call.Resolved, call.In)
			}
		}
	}
	if len(checked) < 10 {
		t.Errorf("only %v were checked", checked)
	}
}

// runKernel runs a call with its output 0 in the buffer of input k, or in a buffer of its own if k
// is -1.
func runKernel(p graph.Pool, r *graph.Resolved, in []graph.Array, k int) []graph.Buffer {
	buffer := func(o graph.Operand) graph.Buffer {
		b := graph.Buffer{Rows: o.Shape.Rows(), Cols: o.Shape.Cols(), Stride: o.Shape.Cols()}
		if o.DType == graph.Int32 {
			b.I32 = make([]int32, o.Shape.Size())
		} else {
			b.F32 = make([]float32, o.Shape.Size())
		}
		return b
	}
	c := &graph.CPUCall{Dims: r.Dims, Pool: p}
	for i, o := range r.In {
		b := buffer(o)
		for j, x := range in[i].Data {
			if b.I32 != nil {
				b.I32[j] = int32(x)
			} else {
				b.F32[j] = float32(x)
			}
		}
		c.In = append(c.In, b)
	}
	for i, o := range r.Out {
		b := buffer(o)
		for j := range b.F32 {
			b.F32[j] = float32(math.NaN())
		}
		if i == 0 && k >= 0 {
			b = c.In[k]
		}
		c.Out = append(c.Out, b)
	}
	if r.Spec.Workspace != nil {
		c.Workspace = make([]float32, r.Spec.Workspace(r.Dims, p.Workers()))
	}
	r.Spec.CPU(c)()
	return c.Out
}
