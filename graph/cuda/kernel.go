//go:build linux

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
)

// kernel is a launch with its parameters in the form that the driver takes.
type kernel struct {
	driver      *driver
	name        string
	function    uintptr
	grid, block [3]int
	shared      int
	values      []uint64
	table       []*uint64
}

// kernel is a launch of a function of an op's source.
func (d *Device) kernel(op, source string, l graph.Launch) (*kernel, error) {
	f, err := d.function(op, source, l)
	if err != nil {
		return nil, err
	}
	k, err := newKernel(d.driver, f, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Kernel, err)
	}
	return k, nil
}

func newKernel(d *driver, f uintptr, l graph.Launch) (*kernel, error) {
	k := &kernel{driver: d, name: l.Kernel, function: f, grid: l.Grid, block: l.Block, shared: l.Shared}
	for _, dim := range []*[3]int{&k.grid, &k.block} {
		for i := range dim {
			if dim[i] == 0 {
				dim[i] = 1
			}
			if dim[i] < 0 {
				return nil, fmt.Errorf("grid %v, block %v", k.grid, k.block)
			}
		}
	}
	k.values = make([]uint64, len(l.Args))
	for i, a := range l.Args {
		switch a := a.(type) {
		case uint64:
			k.values[i] = a
		case int32:
			k.values[i] = uint64(uint32(a))
		case float32:
			*(*float32)(unsafe.Pointer(&k.values[i])) = a
		default:
			return nil, fmt.Errorf("argument %d is a %T, want uint64, int32 or float32", i, a)
		}
		k.table = append(k.table, &k.values[i])
	}
	return k, nil
}

func (k *kernel) enqueue(stream uintptr) error {
	var table uintptr
	if len(k.table) > 0 {
		table = uintptr(unsafe.Pointer(&k.table[0]))
	}
	err := k.driver.call("cuLaunchKernel", k.driver.launchKernel, k.function,
		uintptr(k.grid[0]), uintptr(k.grid[1]), uintptr(k.grid[2]), uintptr(k.block[0]), uintptr(k.block[1]), uintptr(k.block[2]),
		uintptr(k.shared), stream, table, 0)
	if err != nil {
		return fmt.Errorf("%w: %s, grid %v, block %v, %d bytes shared", err, k.name, k.grid, k.block, k.shared)
	}
	return nil
}
