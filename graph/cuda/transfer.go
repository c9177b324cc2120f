//go:build linux

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
)

// TakeState implements graph.Program. It is ordered with the programs' runs.
func (p *Program) TakeState(row int, from graph.Program, fromRow int) error {
	own, ok := from.(*Program)
	if !ok || own.d != p.d {
		return fmt.Errorf("cuda: the other program belongs to another device (%T)", from)
	}
	list, err := p.plan.TakeState(row, own.plan, fromRow)
	if err != nil {
		return fmt.Errorf("cuda: %w", err)
	}
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	for _, c := range list {
		err := p.d.driver.call("cuMemcpyDtoDAsync", p.d.driver.copyDtoDAsync,
			uintptr(p.regions[graph.States])+uintptr(c.To), uintptr(own.regions[graph.States])+uintptr(c.From), uintptr(c.Bytes), p.d.stream)
		if err != nil {
			return err
		}
	}
	return nil
}

// staging is the pinned memory of an input. The GPU must not be reading it.
func (p *Program) staging(name string, t graph.DType, n int) (unsafe.Pointer, error) {
	s, ok := p.plan.Inputs[name]
	if !ok {
		return nil, fmt.Errorf("cuda: the plan has no input %s", name)
	}
	if s.DType != t || s.Rows*s.Cols != n {
		return nil, fmt.Errorf("cuda: input %s is %v %v, not %d elements of %v", name, s.DType, s.Shape, n, t)
	}
	leave, err := p.d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return unsafe.Add(p.inputs, 4*s.Offset), p.d.synchronize()
}

// WriteInts implements graph.Program.
func (p *Program) WriteInts(name string, src []int32) error {
	to, err := p.staging(name, graph.Int32, len(src))
	if err == nil {
		copy(unsafe.Slice((*int32)(to), len(src)), src)
	}
	return err
}

// WriteFloats implements graph.Program.
func (p *Program) WriteFloats(name string, src []float32) error {
	to, err := p.staging(name, graph.Float32, len(src))
	if err == nil {
		copy(unsafe.Slice((*float32)(to), len(src)), src)
	}
	return err
}

// Read implements graph.Program. bfloat16 results are widened.
func (p *Program) Read(name string, dst []float32) error {
	s, ok := p.plan.Results[name]
	if !ok {
		return fmt.Errorf("cuda: the plan has no result %s", name)
	}
	return p.ReadSlot(s, dst)
}

// ReadSlot copies any tensor of the plan to dst, row after row, as float32.
func (p *Program) ReadSlot(s graph.Slot, dst []float32) error {
	if s.Rows*s.Cols != len(dst) || s.DType == graph.Int32 {
		return fmt.Errorf("cuda: a tensor of %v %v does not fill %d float32s", s.DType, s.Shape, len(dst))
	}
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.d.synchronize(); err != nil {
		return err
	}
	b := p.buffer(s)
	size := s.DType.Size()
	raw := make([]byte, ((b.Rows-1)*b.Stride+b.Cols)*size)
	if err := p.d.driver.call("cuMemcpyDtoH", p.d.driver.copyDtoH, uintptr(unsafe.Pointer(&raw[0])), uintptr(b.Address), uintptr(len(raw))); err != nil {
		return err
	}
	for i := range b.Rows {
		for j := range b.Cols {
			at := (i*b.Stride + j) * size
			if s.DType == graph.BFloat16 {
				*(*uint32)(unsafe.Pointer(&dst[i*b.Cols+j])) = uint32(raw[at])<<16 | uint32(raw[at+1])<<24
			} else {
				dst[i*b.Cols+j] = *(*float32)(unsafe.Pointer(&raw[at]))
			}
		}
	}
	return nil
}
