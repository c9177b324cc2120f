//go:build linux

package cuda

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
)

// Device is one NVIDIA GPU.
type Device struct {
	driver   *driver
	compiler *compiler
	blas     *blas
	lt       uintptr // cublasLt's handle

	handle     int32
	context    uintptr
	stream     uintptr
	name       string
	arch       string
	sms        int
	capability int    // 90 for compute capability 9.0
	scratch    uint64 // cublasLt's workspace
	tf32       bool
	tuner      *tuner // nil: the library's first proposals are used
	modules    modules
	programs   []*Program

	// With several processes: their communicator, the stream of its calls, and the event that makes
	// this stream wait for the kernels' stream.
	comm       graph.StreamComm
	side, fork uintptr
	memories   []*Memory
}

// New opens a GPU by its number among those that CUDA_VISIBLE_DEVICES exposes.
func New(ordinal int) (*Device, error) {
	drv, err := openDriver()
	if err != nil {
		return nil, err
	}
	d := &Device{driver: drv}
	if d.compiler, err = openCompiler(); err != nil {
		return nil, err
	}
	d.modules.load = func(op string, u unit) (uintptr, error) { return load(drv, d.compiler, op, u) }
	if d.blas, err = openBLAS(); err != nil {
		return nil, err
	}
	if err := d.find(ordinal); err != nil {
		return nil, err
	}
	if err := drv.call("cuDevicePrimaryCtxRetain", drv.primaryCtxRetain, uintptr(unsafe.Pointer(&d.context)), uintptr(d.handle)); err != nil {
		return nil, fmt.Errorf("%w: opening GPU %d, %s", err, ordinal, d.name)
	}
	if err := d.Within(d.open); err != nil {
		_ = d.Close() // the first error is the one to report
		return nil, err
	}
	return d, nil
}

// open creates the device's own objects in the GPU's context.
func (d *Device) open() (err error) {
	// Copies and fills without a stream go to the default stream, and may return before they are
	// done: this stream waits for the default stream, and vice versa.
	const waitsForDefault = 0
	if err := d.driver.call("cuStreamCreate", d.driver.streamCreate, uintptr(unsafe.Pointer(&d.stream)), waitsForDefault); err != nil {
		return err
	}
	if err := d.blas.call("cublasLtCreate", d.blas.create, uintptr(unsafe.Pointer(&d.lt))); err != nil {
		return err
	}
	d.scratch, err = d.alloc(workspaceBytes)
	return err
}

// find selects the GPU with a number, if kernels support it.
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

// AllowTF32 lets tensor cores compute products of float32 inputs with weights: they use 10 bits of
// the mantissa of each input. It applies to programs that are loaded afterwards.
func (d *Device) AllowTF32() { d.tf32 = true }

// Count is the number of GPUs that the driver exposes; 0 if there is none, or no driver.
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

// enter makes the GPU's context current for the calling thread, to which the goroutine is locked
// until leave.
func (d *Device) enter() (leave func(), err error) {
	runtime.LockOSThread()
	if err := d.driver.call("cuCtxSetCurrent", d.driver.setCurrent, d.context); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return runtime.UnlockOSThread, nil
}

// Within runs f on a thread for which the GPU's context is current.
func (d *Device) Within(f func() error) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	return f()
}

// atRest runs f, with the GPU's context current, after all work submitted to the GPU is done.
func (d *Device) atRest(f func() error) error {
	return d.Within(func() error {
		if err := d.synchronize(); err != nil {
			return err
		}
		return f()
	})
}

func (d *Device) synchronize() error {
	return d.driver.call("cuStreamSynchronize", d.driver.streamSynchronize, d.stream)
}

// Name implements graph.Device.
func (d *Device) Name() string { return fmt.Sprintf("cuda (%s, %s)", d.name, d.arch) }

// Libraries lists the driver, compiler and matrix library in use, and where they were found.
func (d *Device) Libraries() []string {
	blas, _, _ := purego.SyscallN(d.blas.version)
	return []string{
		fmt.Sprintf("driver: CUDA %v (%s)", d.driver.version, d.driver.lib.Path),
		fmt.Sprintf("nvrtc: %d.%d (%s)", d.compiler.major, d.compiler.minor, d.compiler.lib.Path),
		fmt.Sprintf("cublasLt: %d (%s)", blas, d.blas.lib.Path),
	}
}

// function looks up a kernel in a source, which is compiled the first time.
func (d *Device) function(op string, source string, l graph.Launch) (uintptr, error) {
	module, err := d.modules.of(op, newUnit(source, d.arch, l.Defines))
	if err != nil {
		return 0, err
	}
	var f uintptr
	if err := d.driver.call("cuModuleGetFunction", d.driver.moduleGetFunction, uintptr(unsafe.Pointer(&f)), module, uintptr(unsafe.Pointer(cString(l.Kernel)))); err != nil {
		return 0, fmt.Errorf("%w: %s.%s", err, op, l.Kernel)
	}
	if l.Shared > 0 { // also below 48 KB: a kernel's static variables count, too
		const maxDynamicShared = 8
		if err := d.driver.call("cuFuncSetAttribute", d.driver.funcSetAttribute, f, maxDynamicShared, uintptr(l.Shared)); err != nil {
			return 0, fmt.Errorf("%w: %s.%s with %d bytes of shared memory", err, op, l.Kernel, l.Shared)
		}
	}
	return f, nil
}

// Close implements graph.Device. A device that has not left the other processes keeps its memory
// until the process ends: the GPU may be waiting for one of them, and then Close would, too.
func (d *Device) Close() error {
	if d.comm != nil {
		return nil
	}
	return d.Within(func() error {
		for len(d.programs) > 0 {
			d.programs[0].release()
		}
		for _, m := range d.memories {
			m.release()
		}
		d.free(d.scratch)
		for _, m := range d.modules.loaded {
			purego.SyscallN(d.driver.moduleUnload, m)
		}
		if d.lt != 0 {
			purego.SyscallN(d.blas.destroy, d.lt)
		}
		if d.stream != 0 {
			purego.SyscallN(d.driver.streamDestroy, d.stream)
		}
		return d.driver.call("cuDevicePrimaryCtxRelease", d.driver.primaryCtxRelease, uintptr(d.handle))
	})
}
