//go:build linux

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
)

// kernel is a launch with its parameters in the driver's format.
type kernel struct {
	driver      *driver
	name        string
	function    uintptr
	grid, block [3]int
	shared      int
	early       bool
	values      []uint64
	table       []*uint64
}

// kernel is a launch of a function of an op's source.
func (d *Device) kernel(op, source string, l graph.Launch) (*kernel, error) {
	f, err := d.function(op, source, l)
	if err != nil {
		return nil, err
	}
	k, err := newKernel(d, f, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Kernel, err)
	}
	return k, nil
}

func newKernel(d *Device, f uintptr, l graph.Launch) (*kernel, error) {
	k := &kernel{driver: d.driver, name: l.Kernel, function: f, grid: l.Grid, block: l.Block, shared: l.Shared,
		early: l.Early && d.capability >= 90}
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
		case graph.TensorMap:
			m, err := d.driver.encode(a)
			if err != nil {
				return nil, fmt.Errorf("argument %d: %w", i, err)
			}
			k.table = append(k.table, m)
			continue
		default:
			return nil, fmt.Errorf("argument %d is a %T, want uint64, int32, float32 or graph.TensorMap", i, a)
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
	var err error
	if k.early {
		attribute := launchAttribute{id: programmaticSerialization, value: [64]byte{1}}
		c := launchConfig{grid: triple(k.grid), block: triple(k.block), shared: uint32(k.shared), stream: stream, attributes: &attribute, count: 1}
		err = k.driver.call("cuLaunchKernelEx", k.driver.launchKernelEx, uintptr(unsafe.Pointer(&c)), k.function, table, 0)
	} else {
		err = k.driver.call("cuLaunchKernel", k.driver.launchKernel, k.function,
			uintptr(k.grid[0]), uintptr(k.grid[1]), uintptr(k.grid[2]), uintptr(k.block[0]), uintptr(k.block[1]), uintptr(k.block[2]),
			uintptr(k.shared), stream, table, 0)
	}
	if err != nil {
		return fmt.Errorf("%w: %s, grid %v, block %v, %d bytes shared", err, k.name, k.grid, k.block, k.shared)
	}
	return nil
}

// encode makes the 128 bytes of a CUtensorMap.
func (d *driver) encode(m graph.TensorMap) (*uint64, error) {
	const bytes, boxCols, bfloat16, swizzle128, promotion256 = 128, 64, 9, 3, 3
	if m.Matrix.DType != graph.BFloat16 || m.Matrix.Address%tensorBytes != 0 || m.Matrix.Stride%(tensorBytes/2) != 0 {
		return nil, fmt.Errorf("a map of %v, %d apart, at %#x: want bfloat16 and multiples of %d bytes", m.Matrix.DType, m.Matrix.Stride, m.Matrix.Address, tensorBytes)
	}
	room := make([]uint64, 2*bytes/8)
	for uintptr(unsafe.Pointer(&room[0]))%64 != 0 {
		room = room[1:]
	}
	to := &room[0]
	if d == nil { // in a test without a GPU
		return to, nil
	}
	dims := [2]uint64{uint64(m.Matrix.Cols), uint64(m.Matrix.Rows)}
	stride := uint64(2 * m.Matrix.Stride)
	box, steps := [2]uint32{boxCols, uint32(m.Box)}, [2]uint32{1, 1}
	return to, d.call("cuTensorMapEncodeTiled", d.tensorMapEncode, uintptr(unsafe.Pointer(to)), bfloat16, 2, uintptr(m.Matrix.Address),
		uintptr(unsafe.Pointer(&dims)), uintptr(unsafe.Pointer(&stride)), uintptr(unsafe.Pointer(&box)), uintptr(unsafe.Pointer(&steps)),
		0, swizzle128, promotion256, 0)
}

// launchConfig and launchAttribute are CUlaunchConfig and CUlaunchAttribute.
type launchConfig struct {
	grid, block [3]uint32
	shared      uint32
	stream      uintptr
	attributes  *launchAttribute
	count       uint32
}

type launchAttribute struct {
	id    uint32
	_     [4]byte
	value [64]byte
}

// programmaticSerialization is the attribute that lets a kernel start before its predecessor on the
// stream has ended (programmatic dependent launch).
const programmaticSerialization = 6

func triple(n [3]int) [3]uint32 { return [3]uint32{uint32(n[0]), uint32(n[1]), uint32(n[2])} }
