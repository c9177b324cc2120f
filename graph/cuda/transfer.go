//go:build linux

package cuda

import (
	"fmt"
	"math"
	"sync"
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
	return p.d.Within(func() error {
		for _, c := range list {
			err := p.d.driver.call("cuMemcpyDtoDAsync", p.d.driver.copyDtoDAsync,
				uintptr(p.regions[graph.States])+uintptr(c.To), uintptr(own.regions[graph.States])+uintptr(c.From), uintptr(c.Bytes), p.d.stream)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// write fills an input of n elements, in pinned memory, while the GPU doesn't read it.
func (p *Program) write(name string, t graph.DType, n int, fill func(to unsafe.Pointer)) error {
	s, ok := p.plan.Inputs[name]
	if !ok {
		return fmt.Errorf("cuda: the plan has no input %s", name)
	}
	if s.DType != t || s.Rows*s.Cols != n {
		return fmt.Errorf("cuda: input %s is %v %v, not %d elements of %v", name, s.DType, s.Shape, n, t)
	}
	if p.exec == 0 {
		return errClosed
	}
	return p.d.Within(func() error {
		await := p.turn
		if p.take == nil {
			await = p.d.synchronize
		}
		if err := await(); err != nil {
			return err
		}
		fill(unsafe.Add(p.place(), 4*s.Offset))
		return nil
	})
}

// WriteInts implements graph.Program.
func (p *Program) WriteInts(name string, src []int32) error {
	return p.write(name, graph.Int32, len(src), func(to unsafe.Pointer) { copy(unsafe.Slice((*int32)(to), len(src)), src) })
}

// WriteFloats implements graph.Program.
func (p *Program) WriteFloats(name string, src []float32) error {
	return p.write(name, graph.Float32, len(src), func(to unsafe.Pointer) { copy(unsafe.Slice((*float32)(to), len(src)), src) })
}

// Read implements graph.Program. bfloat16 results are widened.
func (p *Program) Read(name string, dst []float32) error {
	s, ok := p.plan.Results[name]
	if !ok {
		return fmt.Errorf("cuda: the plan has no result %s", name)
	}
	if s.DType == graph.Int32 {
		return fmt.Errorf("cuda: result %s is int32", name)
	}
	return p.read(s, p.results[name], dst)
}

// Result implements graph.Program.
func (p *Program) Result(name string) ([]float32, error) {
	s := p.plan.Results[name]
	n := s.Rows * s.Cols
	from, ok := p.results[name]
	if !ok {
		if p.copies[name] == nil {
			p.copies[name] = make([]float32, n)
		}
		return p.copies[name], p.Read(name, p.copies[name])
	}
	leave, err := p.d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return unsafe.Slice((*float32)(from), n), p.d.synchronize()
}

// ReadSlot copies any tensor of the plan to dst as float32, in row-major order.
func (p *Program) ReadSlot(s graph.Slot, dst []float32) error { return p.read(s, nil, dst) }

// read copies a tensor of the plan to dst: from pinned memory, where a run leaves it in float32, or
// from device memory if pinned is nil.
func (p *Program) read(s graph.Slot, pinned unsafe.Pointer, dst []float32) error {
	if err := fills(s, dst); err != nil {
		return err
	}
	return p.atRest(func() error {
		from := pinned
		if from != nil {
			s.DType, s.Stride = graph.Float32, s.Cols
		} else {
			raw := make([]uint32, (slotBytes(s)+3)/4)
			from = unsafe.Pointer(&raw[0])
			if err := p.d.driver.call("cuMemcpyDtoH", p.d.driver.copyDtoH, uintptr(from), uintptr(p.buffer(s).Address), uintptr(slotBytes(s))); err != nil {
				return err
			}
		}
		copyWide(dst, from, s)
		return nil
	})
}

func fills(s graph.Slot, dst []float32) error {
	if s.Rows*s.Cols != len(dst) {
		return fmt.Errorf("cuda: a tensor of %v %v does not fill %d float32s", s.DType, s.Shape, len(dst))
	}
	return nil
}

// slotBytes is the extent of a tensor, from its first element to its last.
func slotBytes(s graph.Slot) int { return ((s.Rows-1)*s.Stride + s.Cols) * s.DType.Size() }

// copyWide copies a tensor from host memory, on several threads if it is large.
func copyWide(dst []float32, from unsafe.Pointer, s graph.Slot) {
	const share = 1 << 15 // elements per goroutine
	rows := max(1, share/s.Cols)
	var wait sync.WaitGroup
	for first := 0; first < s.Rows; first += rows {
		some := s
		some.Rows = min(rows, s.Rows-first)
		to, at := dst[first*s.Cols:], unsafe.Add(from, first*s.Stride*s.DType.Size())
		if some.Rows == s.Rows {
			copyRows(to, at, some)
			return
		}
		wait.Go(func() { copyRows(to, at, some) })
	}
	wait.Wait()
}

func copyRows(dst []float32, from unsafe.Pointer, s graph.Slot) {
	for i := range s.Rows {
		to, at := dst[i*s.Cols:(i+1)*s.Cols], unsafe.Add(from, i*s.Stride*s.DType.Size())
		switch s.DType {
		case graph.BFloat16:
			for j, v := range unsafe.Slice((*uint16)(at), s.Cols) {
				to[j] = math.Float32frombits(uint32(v) << 16)
			}
		case graph.Int32:
			for j, v := range unsafe.Slice((*int32)(at), s.Cols) {
				to[j] = float32(v)
			}
		default:
			copy(to, unsafe.Slice((*float32)(at), s.Cols))
		}
	}
}
