//go:build linux

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
)

// alloc allocates zeroed device memory.
func (d *Device) alloc(bytes int) (uint64, error) {
	var p uint64
	if bytes == 0 {
		return 0, nil
	}
	if err := d.driver.call("cuMemAlloc", d.driver.memAlloc, uintptr(unsafe.Pointer(&p)), uintptr(bytes)); err != nil {
		free, total, _ := d.memory() // zeros if even this fails
		return 0, fmt.Errorf("%w: wanted %.2f GB, %.2f of %.2f GB are free on %s; end what else uses it, or lower train.micro_batch or run.memory_budget",
			err, float64(bytes)/1e9, float64(free)/1e9, float64(total)/1e9, d.name)
	}
	if err := d.driver.call("cuMemsetD8", d.driver.memset, uintptr(p), 0, uintptr(bytes)); err != nil {
		d.free(p)
		return 0, err
	}
	return p, nil
}

// memory is the GPU's free and total memory in bytes.
func (d *Device) memory() (free, total uint64, err error) {
	err = d.driver.call("cuMemGetInfo", d.driver.memGetInfo, uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	return free, total, err
}

// allocPinned allocates host memory that the GPU can access at the same addresses. Go's garbage
// collector doesn't know about it.
func (d *Device) allocPinned(bytes int) (p unsafe.Pointer, err error) {
	if bytes == 0 {
		return nil, nil
	}
	if err := d.driver.call("cuMemHostAlloc", d.driver.memHostAlloc, uintptr(unsafe.Pointer(&p)), uintptr(bytes), 0); err != nil {
		return nil, fmt.Errorf("%w: wanted %.2f GB of the machine's own memory for transfers", err, float64(bytes)/1e9)
	}
	return p, nil
}

func (d *Device) free(p uint64) {
	if p != 0 {
		purego.SyscallN(d.driver.memFree, uintptr(p))
	}
}

// Asynchronous implements graph.Device.
func (d *Device) Asynchronous() bool { return true }

// FreeMemory implements graph.Device.
func (d *Device) FreeMemory() (int64, error) {
	var free uint64
	err := d.Within(func() (err error) {
		free, _, err = d.memory()
		return err
	})
	return int64(free), err
}

// Memory is the persistent regions, and the arena that programs share, in device memory.
type Memory struct {
	d       *Device
	sizes   [graph.Regions]int
	regions [graph.Regions]uint64
}

// NewMemory implements graph.Device.
func (d *Device) NewMemory(sizes [graph.Regions]int) (graph.Memory, error) {
	m := &Memory{d: d, sizes: sizes}
	err := d.Within(func() (err error) {
		for r := range graph.Regions {
			if r == graph.Inputs || r == graph.States {
				continue
			}
			if m.regions[r], err = d.alloc(4 * sizes[r]); err != nil {
				m.release()
				return fmt.Errorf("region %v: %w", r, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.memories = append(d.memories, m)
	return m, nil
}

func (m *Memory) release() {
	for _, r := range m.regions {
		m.d.free(r)
	}
}

func (m *Memory) check(r graph.Region, offset, n int) error {
	if offset < 0 || offset+n > m.sizes[r] {
		return fmt.Errorf("cuda: elements %d to %d are outside region %v of %d", offset, offset+n, r, m.sizes[r])
	}
	return nil
}

// Read implements graph.Memory.
func (m *Memory) Read(r graph.Region, offset int, dst []float32) error {
	if err := m.check(r, offset, len(dst)); err != nil || len(dst) == 0 {
		return err
	}
	return m.d.atRest(func() error {
		return m.d.driver.call("cuMemcpyDtoH", m.d.driver.copyDtoH, uintptr(unsafe.Pointer(&dst[0])), uintptr(m.regions[r])+uintptr(4*offset), uintptr(4*len(dst)))
	})
}

// Write implements graph.Memory.
func (m *Memory) Write(r graph.Region, offset int, src []float32) error {
	if err := m.check(r, offset, len(src)); err != nil || len(src) == 0 {
		return err
	}
	return m.d.atRest(func() error {
		return m.d.driver.call("cuMemcpyHtoD", m.d.driver.copyHtoD, uintptr(m.regions[r])+uintptr(4*offset), uintptr(unsafe.Pointer(&src[0])), uintptr(4*len(src)))
	})
}

// Clear implements graph.Memory. It is ordered with the programs' runs.
func (m *Memory) Clear(r graph.Region) error {
	if m.sizes[r] == 0 {
		return nil
	}
	return m.d.Within(func() error {
		return m.d.driver.call("cuMemsetD32Async", m.d.driver.memsetAsync, uintptr(m.regions[r]), 0, uintptr(m.sizes[r]), m.d.stream)
	})
}
