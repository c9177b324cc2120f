//go:build linux

package cuda

import (
	"errors"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
)

// TestFailedLoad: a program that can't be loaded leaves no memory allocated, and leaves memory lent
// to it unchanged.
func TestFailedLoad(t *testing.T) {
	d := open(t)
	r, err := linear.Spec().ResolveDims(graph.Dims{"B": 1, "T": 4096, "M": 4096, "K": 1024})
	if err != nil {
		t.Fatal(err)
	}
	broken, failure := *r.Spec, errors.New("no such launch")
	broken.CUDA = &graph.CUDA{Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		list, err := linear.Spec().CUDA.Launches(c)
		return append(list, graph.Launch{Kernel: "none"}), err
	}}
	refused := *r.Spec
	refused.CUDA = &graph.CUDA{Launches: func(*graph.CUDACall) ([]graph.Launch, error) { return nil, failure }}
	unsupported := *r.Spec
	unsupported.CUDA = nil
	free := func() int64 {
		n, err := d.FreeMemory()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var sizes [graph.Regions]int
	sizes[graph.Arena], sizes[graph.Grads] = 16<<20, 4
	memory, err := d.NewMemory(sizes)
	if err != nil {
		t.Fatal(err)
	}
	if err := memory.Write(graph.Grads, 0, []float32{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	load := func(spec *graph.Spec, change func(p *graph.Plan), lent graph.Memory) error {
		resolved := *r
		resolved.Spec = spec
		plan := planCall(&resolved, precisions[1], 0)
		change(plan)
		_, err := d.Load(plan, lent)
		return err
	}
	same := func(*graph.Plan) {}
	load(&broken, same, nil) // whatever the driver and cublasLt keep from the first time on
	before := free()
	for name, err := range map[string]error{
		"a launch that is refused":  load(&refused, same, nil),
		"a kernel that isn't there": load(&broken, same, nil),
		"an op without kernels":     load(&unsupported, same, memory),
		"a region too small":        load(r.Spec, func(p *graph.Plan) { p.Sizes[graph.Grads] = 5 }, memory),
		"more than there is":        load(r.Spec, func(p *graph.Plan) { p.Sizes[graph.Arena] = 1 << 40 }, memory),
	} {
		if err == nil {
			t.Errorf("%s: loads", name)
		}
	}
	if after := free(); after < before || len(d.programs) > 0 {
		t.Errorf("%d bytes are free, were %d before; %d programs", after, before, len(d.programs))
	}
	got := make([]float32, 4)
	if err := memory.Read(graph.Grads, 0, got); err != nil || got[3] != 4 {
		t.Errorf("memory that was lent holds %v, %v", got, err)
	}
	if _, err := d.NewMemory([graph.Regions]int{graph.Params: 1 << 20, graph.Shadow: 1 << 40}); err == nil || free() < before {
		t.Errorf("memory that there isn't gives %v, and takes %d bytes", err, before-free())
	}
}
