//go:build linux

package cuda

import (
	_ "embed"
	"maps"
	"slices"
	"strconv"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed pinned.cu
var pinnedSource string

const (
	// mostTaken is the largest number of elements of inputs that a kernel reads from pinned memory;
	// more are copied.
	mostTaken = 1 << 10
	// mostGiven is the largest size of results, in bytes of float32, that each run writes to pinned
	// memory, where Read and Result find them without another call.
	mostGiven = 8 << 20
)

func (p *Program) enqueueInputs() error {
	n := 4 * p.plan.Sizes[graph.Inputs]
	switch {
	case p.take != nil:
		return p.take.enqueue(p.d.stream)
	case n == 0:
		return nil
	}
	return p.d.driver.call("cuMemcpyHtoDAsync", p.d.driver.copyHtoDAsync, uintptr(p.regions[graph.Inputs]), uintptr(p.inputs), uintptr(n), p.d.stream)
}

// placeResults allocates memory for a run's results.
func (p *Program) placeResults() (err error) {
	bytes := 0
	for _, s := range p.plan.Results {
		if s.DType == graph.Int32 {
			continue // see turns
		}
		if s.Region != graph.Arena {
			return nil // it may change without a run
		}
		bytes += resultBytes(s)
	}
	if bytes == 0 || bytes > mostGiven {
		return nil
	}
	if p.returned, err = p.d.allocPinned(bytes); err != nil {
		return err
	}
	p.results = map[string]unsafe.Pointer{}
	at := 0
	for _, name := range slices.Sorted(maps.Keys(p.plan.Results)) {
		s := p.plan.Results[name]
		if s.DType == graph.Int32 {
			continue
		}
		p.results[name] = unsafe.Add(p.returned, at)
		at += resultBytes(s)
	}
	return nil
}

// host is the memory for the result that step i computes, if no later step accesses that result.
func (p *Program) host(i int) (name string, b graph.DeviceBuffer) {
	if len(p.plan.Steps[i].Out) == 0 {
		return "", b
	}
	out := p.plan.Steps[i].Out[0]
	for n := range p.results {
		switch r := p.plan.Results[n]; {
		case !r.Overlaps(out):
		case name != "" || r.Offset != out.Offset || r.Col != out.Col || r.Rows != out.Rows || r.Cols != out.Cols || r.Stride != out.Stride || r.DType != out.DType:
			return "", b // it contains another result
		default:
			name = n
		}
	}
	if name == "" || slices.ContainsFunc(p.plan.Steps[i].In, out.Overlaps) {
		return "", b
	}
	for _, s := range p.plan.Steps[i+1:] {
		if slices.ContainsFunc(s.In, out.Overlaps) || slices.ContainsFunc(s.Out, out.Overlaps) {
			return "", b
		}
	}
	return name, graph.DeviceBuffer{Address: uint64(uintptr(p.results[name])), DType: graph.Float32, Rows: out.Rows, Cols: out.Cols, Stride: out.Cols}
}

// giveResults adds the kernels that copy results to the host, except for those that a step stores
// there itself.
func (p *Program) giveResults() error {
	for _, name := range slices.Sorted(maps.Keys(p.results)) {
		if p.stored[name] {
			continue
		}
		k, err := p.d.kernel("pinned", pinnedSource, giveLaunch(p.buffer(p.plan.Results[name]), uint64(uintptr(p.results[name]))))
		if err != nil {
			return err
		}
		p.give = append(p.give, k)
	}
	return nil
}

// resultBytes is the size of a result as float32, rounded up so that the next one is aligned.
func resultBytes(s graph.Slot) int { return (4*s.Rows*s.Cols + 63) / 64 * 64 }

func giveLaunch(from graph.DeviceBuffer, to uint64) graph.Launch {
	const threads, vector = 256, 4
	width := 1
	if from.Cols%vector == 0 && from.Stride%vector == 0 && from.Address%(4*vector) == 0 {
		width = vector
	}
	return graph.Launch{
		Kernel: "give_result", Defines: map[string]string{"X_T": from.DType.CType(), "WIDTH": strconv.Itoa(width)}, Early: true,
		Grid: [3]int{(from.Rows*from.Cols/width + threads - 1) / threads, 1, 1}, Block: [3]int{threads, 1, 1},
		Args: []any{from.Address, to, int32(from.Rows), int32(from.Cols), uint64(from.Stride)}}
}

func (p *Program) enqueueResults() error {
	for _, k := range p.give {
		if err := k.enqueue(p.d.stream); err != nil {
			return err
		}
	}
	return nil
}
