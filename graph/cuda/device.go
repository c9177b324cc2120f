//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
)

// Device is one NVIDIA GPU.
type Device struct {
	driver   *driver
	compiler *compiler
	blas     *blas

	handle     int32
	context    uintptr
	stream     uintptr
	name       string
	arch       string
	sms        int
	capability int    // 90 for compute capability 9.0
	scratch    uint64 // cublasLt's workspace
	tf32       bool
	tuner      *tuner // nil: the first algorithms are taken
	modules    map[string]uintptr
	programs   []*Program

	// Several processes: what joins them, the stream of their calls, and the event that
	// makes it wait for the other one.
	comm       graph.StreamComm
	side, fork uintptr
	memories   []*Memory
}

// New opens the GPU with a number, counted as CUDA_VISIBLE_DEVICES leaves them.
func New(ordinal int) (*Device, error) {
	drv, err := openDriver()
	if err != nil {
		return nil, err
	}
	d := &Device{driver: drv, modules: map[string]uintptr{}}
	if d.compiler, err = openCompiler(); err != nil {
		return nil, err
	}
	if d.blas, err = openBLAS(); err != nil {
		return nil, err
	}
	if err := d.find(ordinal); err != nil {
		return nil, err
	}
	if err := drv.call("cuDevicePrimaryCtxRetain", drv.primaryCtxRetain, uintptr(unsafe.Pointer(&d.context)), uintptr(d.handle)); err != nil {
		return nil, err
	}
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	// Copies and fills that take no stream go to the default one, and may return before
	// they are done: this stream waits for it, and it for this one.
	const waitsForDefault = 0
	if err := drv.call("cuStreamCreate", drv.streamCreate, uintptr(unsafe.Pointer(&d.stream)), waitsForDefault); err != nil {
		return nil, err
	}
	if d.blas.handle == 0 {
		if err := d.blas.call("cublasLtCreate", d.blas.create, uintptr(unsafe.Pointer(&d.blas.handle))); err != nil {
			return nil, err
		}
	}
	d.scratch, err = d.alloc(workspaceBytes)
	return d, err
}

// find takes the GPU with a number, if it is one that kernels are made for.
func (d *Device) find(ordinal int) error {
	var count int32
	if err := d.driver.call("cuDeviceGetCount", d.driver.deviceGetCount, uintptr(unsafe.Pointer(&count))); err != nil {
		return err
	}
	if ordinal < 0 || ordinal >= int(count) {
		return fmt.Errorf("cuda: no GPU %d; there are %d", ordinal, count)
	}
	if err := d.driver.call("cuDeviceGet", d.driver.deviceGet, uintptr(unsafe.Pointer(&d.handle)), uintptr(ordinal)); err != nil {
		return err
	}
	var name [256]byte
	if err := d.driver.call("cuDeviceGetName", d.driver.deviceGetName, uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)), uintptr(d.handle)); err != nil {
		return err
	}
	d.name = goString(&name[0])
	major, err := d.driver.attribute(d.handle, attrComputeMajor)
	if err != nil {
		return err
	}
	minor, err := d.driver.attribute(d.handle, attrComputeMinor)
	if err != nil {
		return err
	}
	if major < 8 {
		return fmt.Errorf("cuda: %s has compute capability %d.%d; 8.0 or newer is needed", d.name, major, minor)
	}
	d.arch, d.capability = architecture(major, minor), 10*major+minor
	d.sms, err = d.driver.attribute(d.handle, attrMultiprocessors)
	return err
}

// AllowTF32 lets tensor cores compute products of float32 factors with weights: of each
// factor they take 10 bits of the mantissa. For programs loaded from here on.
func (d *Device) AllowTF32() { d.tf32 = true }

// Count is how many GPUs the driver shows; 0 where there is none, or no driver.
func Count() int {
	drv, err := openDriver()
	if err != nil {
		return 0
	}
	var count int32
	if err := drv.call("cuDeviceGetCount", drv.deviceGetCount, uintptr(unsafe.Pointer(&count))); err != nil {
		return 0
	}
	return int(count)
}

// enter makes the GPU's context current for the calling thread, which the
// goroutine keeps until leave.
func (d *Device) enter() (leave func(), err error) {
	runtime.LockOSThread()
	if err := d.driver.call("cuCtxSetCurrent", d.driver.setCurrent, d.context); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return runtime.UnlockOSThread, nil
}

// Name implements graph.Device.
func (d *Device) Name() string { return fmt.Sprintf("cuda (%s, %s)", d.name, d.arch) }

// Libraries says which driver, compiler and matrix library are in use, and where
// they were found.
func (d *Device) Libraries() []string {
	var version int32
	purego.SyscallN(d.driver.driverGetVersion, uintptr(unsafe.Pointer(&version)))
	blas, _, _ := purego.SyscallN(d.blas.version)
	return []string{
		fmt.Sprintf("driver: CUDA %d.%d (%s)", version/1000, version%1000/10, d.driver.lib.Path),
		fmt.Sprintf("nvrtc: %d.%d (%s)", d.compiler.major, d.compiler.minor, d.compiler.lib.Path),
		fmt.Sprintf("cublasLt: %d (%s)", blas, d.blas.lib.Path),
	}
}

// alloc takes device memory, filled with zeros.
func (d *Device) alloc(bytes int) (uint64, error) {
	var p uint64
	if bytes == 0 {
		return 0, nil
	}
	if err := d.driver.call("cuMemAlloc", d.driver.memAlloc, uintptr(unsafe.Pointer(&p)), uintptr(bytes)); err != nil {
		var free, total uint64
		purego.SyscallN(d.driver.memGetInfo, uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
		return 0, fmt.Errorf("%w: wanted %.2f GB, %.2f of %.2f GB are free on %s; lower train.micro_batch", err,
			float64(bytes)/1e9, float64(free)/1e9, float64(total)/1e9, d.name)
	}
	return p, d.driver.call("cuMemsetD8", d.driver.memset, uintptr(p), 0, uintptr(bytes))
}

func (d *Device) free(p uint64) {
	if p != 0 {
		purego.SyscallN(d.driver.memFree, uintptr(p))
	}
}

// function compiles a source and finds a kernel in it.
func (d *Device) function(op string, source string, l graph.Launch) (uintptr, error) {
	key := op + "\x00" + strings.Join(options(d.arch, l.Defines), "\x00") + "\x00" + source
	module := d.modules[key]
	if module == 0 {
		code, err := d.compiler.build(op+".cu", source, d.arch, l.Defines)
		if err != nil {
			return 0, err
		}
		if err := d.driver.call("cuModuleLoadData", d.driver.moduleLoadData, uintptr(unsafe.Pointer(&module)), uintptr(unsafe.Pointer(&code[0]))); err != nil {
			return 0, fmt.Errorf("%w: %s", err, op)
		}
		d.modules[key] = module
	}
	var f uintptr
	if err := d.driver.call("cuModuleGetFunction", d.driver.moduleGetFunction, uintptr(unsafe.Pointer(&f)), module, uintptr(unsafe.Pointer(cString(l.Kernel)))); err != nil {
		return 0, fmt.Errorf("%w: %s.%s", err, op, l.Kernel)
	}
	if l.Shared > 48<<10 {
		const maxDynamicShared = 8
		if err := d.driver.call("cuFuncSetAttribute", d.driver.funcSetAttribute, f, maxDynamicShared, uintptr(l.Shared)); err != nil {
			return 0, fmt.Errorf("%w: %s.%s with %d bytes of shared memory", err, op, l.Kernel, l.Shared)
		}
	}
	return f, nil
}

// Close implements graph.Device. A device that has not left other processes keeps its
// memory until the process ends: the GPU may be waiting for one of them, and so would Close.
func (d *Device) Close() error {
	if d.comm != nil {
		return nil
	}
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	for len(d.programs) > 0 {
		d.programs[0].release()
	}
	for _, m := range d.memories {
		for _, r := range m.regions {
			d.free(r)
		}
	}
	d.free(d.scratch)
	for _, m := range d.modules {
		purego.SyscallN(d.driver.moduleUnload, m)
	}
	purego.SyscallN(d.driver.streamDestroy, d.stream)
	return d.driver.call("cuDevicePrimaryCtxRelease", d.driver.primaryCtxRelease, uintptr(d.handle))
}

// FreeMemory implements graph.Device.
func (d *Device) FreeMemory() (int64, error) {
	leave, err := d.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	var free, total uint64
	err = d.driver.call("cuMemGetInfo", d.driver.memGetInfo, uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	return int64(free), err
}

// Memory is the persistent regions, and the arena that programs share, in the GPU's
// memory.
type Memory struct {
	d       *Device
	sizes   [graph.Regions]int
	regions [graph.Regions]uint64
}

// NewMemory implements graph.Device.
func (d *Device) NewMemory(sizes [graph.Regions]int) (graph.Memory, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	m := &Memory{d: d, sizes: sizes}
	d.memories = append(d.memories, m)
	for r := range graph.Regions {
		if r == graph.Inputs || r == graph.States {
			continue
		}
		if m.regions[r], err = d.alloc(4 * sizes[r]); err != nil {
			return nil, fmt.Errorf("region %v: %w", r, err)
		}
	}
	return m, nil
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
	leave, err := m.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := m.d.synchronize(); err != nil {
		return err
	}
	return m.d.driver.call("cuMemcpyDtoH", m.d.driver.copyDtoH, uintptr(unsafe.Pointer(&dst[0])), uintptr(m.regions[r])+uintptr(4*offset), uintptr(4*len(dst)))
}

// Write implements graph.Memory.
func (m *Memory) Write(r graph.Region, offset int, src []float32) error {
	if err := m.check(r, offset, len(src)); err != nil || len(src) == 0 {
		return err
	}
	leave, err := m.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := m.d.synchronize(); err != nil {
		return err
	}
	return m.d.driver.call("cuMemcpyHtoD", m.d.driver.copyHtoD, uintptr(m.regions[r])+uintptr(4*offset), uintptr(unsafe.Pointer(&src[0])), uintptr(4*len(src)))
}

// Clear implements graph.Memory. It is ordered with the programs' runs.
func (m *Memory) Clear(r graph.Region) error {
	if m.sizes[r] == 0 {
		return nil
	}
	leave, err := m.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	return m.d.driver.call("cuMemsetD32Async", m.d.driver.memsetAsync, uintptr(m.regions[r]), 0, uintptr(m.sizes[r]), m.d.stream)
}

func (d *Device) synchronize() error {
	return d.driver.call("cuStreamSynchronize", d.driver.streamSynchronize, d.stream)
}

var errClosed = errors.New("cuda: the program was released")
