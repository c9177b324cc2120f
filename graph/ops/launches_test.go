package ops_test

import (
	"fmt"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
)

// TestLaunches checks what the CUDA side of each op passes to its kernels: the address of every
// operand, none beyond the operands and the workspace that the op asked for, and blocks of threads.
func TestLaunches(t *testing.T) {
	for _, op := range ops.All() {
		for _, c := range op.Cases() {
			r, err := c.Spec.ResolveDims(c.Dims)
			if err != nil {
				t.Fatal(err)
			}
			checkLaunches(t, c.Name, r)
			if c.Spec.Gradient == nil || op.Name == "add" {
				continue
			}
			for _, s := range backward(t, r) {
				checkLaunches(t, c.Name, s.Resolved)
			}
		}
	}
}

// region is where operand i is; the workspace and the counter are beyond all operands.
func region(i int) uint64 { return uint64(i+1) << 40 }

const (
	workspaceRegion = 100
	counterRegion   = 101
)

func checkLaunches(t *testing.T, name string, r *graph.Resolved) {
	t.Helper()
	if r.Spec.CUDA == nil {
		return
	}
	for _, activations := range []graph.DType{graph.Float32, graph.BFloat16} {
		for _, capability := range []int{80, 90} {
			name := fmt.Sprintf("%s/%s, %v, capability %d", r.Spec.Name, name, activations, capability)
			call := &graph.CUDACall{Dims: r.Dims, Multiprocessors: 132, Capability: capability, Workspace: region(workspaceRegion), Counter: region(counterRegion)}
			var sizes [counterRegion + 1]int
			sizes[counterRegion] = 4
			if r.Spec.CUDA.Workspace != nil {
				sizes[workspaceRegion] = r.Spec.CUDA.Workspace(r.Dims)
			}
			place := func(i int, o graph.Operand) graph.DeviceBuffer {
				b := graph.DeviceBuffer{Address: region(i), DType: o.DType, Rows: o.Shape.Rows(), Cols: o.Shape.Cols(), Stride: o.Shape.Cols()}
				if o.Strided {
					b.DType = activations
				}
				sizes[i] = b.Rows * b.Cols * b.DType.Size()
				return b
			}
			for i, o := range r.In {
				call.In = append(call.In, place(i, o))
			}
			for i, o := range r.Out {
				call.Out = append(call.Out, place(len(r.In)+i, o))
			}
			list, err := r.Spec.CUDA.Launches(call)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			used := map[int]bool{}
			use := func(kernel string, address uint64) {
				i := int(address>>40) - 1
				if i < 0 || i > counterRegion {
					return // a size, or a float64's bits
				}
				used[i] = true
				if beyond := int(address - region(i)); beyond > sizes[i] {
					t.Errorf("%s: %s takes the address of byte %d of buffer %d, which has %d", name, kernel, beyond, i, sizes[i])
				}
			}
			for _, l := range list {
				for _, a := range l.Args {
					switch a := a.(type) {
					case uint64:
						use(l.Kernel, a)
					case graph.TensorMap:
						use(l.Kernel, a.Matrix.Address)
					}
				}
				switch {
				case l.Product != nil:
					for _, a := range []uint64{l.Product.A, l.Product.B, l.Product.C, l.Product.From} {
						use("a product", a)
					}
				case l.Collective != nil:
					use("a collective", l.Collective.From.Address)
					use("a collective", l.Collective.To.Address)
				case min(l.Grid[0], l.Grid[1], l.Grid[2], l.Block[0], l.Block[1], l.Block[2]) < 1:
					t.Errorf("%s: %s has a grid of %v blocks of %v threads", name, l.Kernel, l.Grid, l.Block)
				}
			}
			for i := range len(r.In) + len(r.Out) {
				if !used[i] {
					t.Errorf("%s: no kernel takes operand %d of %v", name, i, r.Spec.Signature)
				}
			}
		}
	}
}
