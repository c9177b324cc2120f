//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dylib"
)

// driver is the functions of libcuda that this package uses.
type driver struct {
	lib     *dylib.Library
	version cudaVersion // the CUDA version that it supports

	init, driverGetVersion, getErrorName, getErrorString            uintptr
	deviceGetCount, deviceGet, deviceGetName, deviceGetAttribute    uintptr
	deviceTotalMem, primaryCtxRetain, primaryCtxRelease, setCurrent uintptr
	memGetInfo, memAlloc, memFree, memHostAlloc, memFreeHost        uintptr
	copyHtoD, copyDtoH, copyHtoDAsync, copyDtoHAsync, copyDtoDAsync uintptr
	memset, memsetAsync                                             uintptr
	streamCreate, streamDestroy, streamSynchronize, streamWaitEvent uintptr
	beginCapture, endCapture                                        uintptr
	graphInstantiate, graphLaunch, graphDestroy, graphExecDestroy   uintptr
	eventCreate, eventDestroy, eventRecord, eventSynchronize        uintptr
	eventElapsed                                                    uintptr
	moduleLoadData, moduleUnload, moduleGetFunction                 uintptr
	funcSetAttribute, launchKernel, launchKernelEx                  uintptr
	tensorMapEncode                                                 uintptr
}

var openDriver = sync.OnceValues(func() (*driver, error) {
	lib, err := dylib.Open("libcuda.so.1")
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	d := &driver{lib: lib}
	err = lib.Symbols(map[*uintptr]string{
		&d.init: "cuInit", &d.driverGetVersion: "cuDriverGetVersion",
		&d.getErrorName: "cuGetErrorName", &d.getErrorString: "cuGetErrorString",
		&d.deviceGetCount: "cuDeviceGetCount", &d.deviceGet: "cuDeviceGet", &d.deviceGetName: "cuDeviceGetName",
		&d.deviceGetAttribute: "cuDeviceGetAttribute", &d.deviceTotalMem: "cuDeviceTotalMem_v2",
		&d.primaryCtxRetain: "cuDevicePrimaryCtxRetain", &d.primaryCtxRelease: "cuDevicePrimaryCtxRelease_v2",
		&d.setCurrent: "cuCtxSetCurrent", &d.memGetInfo: "cuMemGetInfo_v2",
		&d.memAlloc: "cuMemAlloc_v2", &d.memFree: "cuMemFree_v2",
		&d.memHostAlloc: "cuMemHostAlloc", &d.memFreeHost: "cuMemFreeHost",
		&d.copyHtoD: "cuMemcpyHtoD_v2", &d.copyDtoH: "cuMemcpyDtoH_v2",
		&d.copyHtoDAsync: "cuMemcpyHtoDAsync_v2", &d.copyDtoDAsync: "cuMemcpyDtoDAsync_v2", &d.copyDtoHAsync: "cuMemcpyDtoHAsync_v2",
		&d.memset: "cuMemsetD8_v2", &d.memsetAsync: "cuMemsetD32Async", &d.streamCreate: "cuStreamCreate", &d.streamDestroy: "cuStreamDestroy_v2",
		&d.streamSynchronize: "cuStreamSynchronize", &d.streamWaitEvent: "cuStreamWaitEvent",
		&d.beginCapture: "cuStreamBeginCapture_v2", &d.endCapture: "cuStreamEndCapture",
		&d.graphInstantiate: "cuGraphInstantiateWithFlags", &d.graphLaunch: "cuGraphLaunch",
		&d.graphDestroy: "cuGraphDestroy", &d.graphExecDestroy: "cuGraphExecDestroy",
		&d.eventCreate: "cuEventCreate", &d.eventDestroy: "cuEventDestroy_v2", &d.eventRecord: "cuEventRecord",
		&d.eventSynchronize: "cuEventSynchronize", &d.eventElapsed: "cuEventElapsedTime_v2 cuEventElapsedTime",
		&d.moduleLoadData: "cuModuleLoadData", &d.moduleUnload: "cuModuleUnload",
		&d.moduleGetFunction: "cuModuleGetFunction",
		&d.funcSetAttribute:  "cuFuncSetAttribute", &d.launchKernel: "cuLaunchKernel", &d.launchKernelEx: "cuLaunchKernelEx",
		&d.tensorMapEncode: "cuTensorMapEncodeTiled",
	})
	if err != nil {
		return nil, err
	}
	if err := d.call("cuInit", d.init, 0); err != nil {
		return nil, fmt.Errorf("%w; nvidia-smi lists the GPUs that work, and CUDA_VISIBLE_DEVICES may hide them", err)
	}
	if err := d.call("cuDriverGetVersion", d.driverGetVersion, uintptr(unsafe.Pointer(&d.version))); err != nil {
		return nil, err
	}
	if len(d.version.libraries("")) == 0 {
		return nil, fmt.Errorf("cuda: %s supports CUDA %v; CUDA %d or newer is needed: update NVIDIA's driver", lib.Path, d.version, slices.Min(majors))
	}
	return d, nil
})

// majors are the major versions of CUDA whose libraries are used, the newest first.
var majors = []int{13, 12}

// cudaVersion is in the format of cuDriverGetVersion: 12040 for 12.4.
type cudaVersion int32

func (v cudaVersion) String() string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// libraries are the names of a library that a driver of this version can work with, the newest
// first: code from a newer major version's compiler or cublasLt does not run on it.
func (v cudaVersion) libraries(stem string) []string {
	var names []string
	for _, major := range majors {
		if int(v)/1000 >= major {
			names = append(names, fmt.Sprintf("%s.%d", stem, major))
		}
	}
	return names
}

// librariesHere are the names for this machine's driver, or all names if there is none.
func librariesHere(stem string) []string {
	if d, err := openDriver(); err == nil {
		return d.version.libraries(stem)
	}
	return cudaVersion(1000 * majors[0]).libraries(stem)
}

// call calls a driver function and converts its result to an error.
//
//go:uintptrescapes
func (d *driver) call(name string, f uintptr, args ...uintptr) error {
	r, _, _ := purego.SyscallN(f, args...)
	if uint32(r) == 0 {
		return nil
	}
	text := fmt.Sprintf("cuda: %s: %s", name, d.describe(uint32(r)))
	if uint32(r) == outOfMemory {
		return &graph.MemoryError{Text: text}
	}
	return errors.New(text)
}

// outOfMemory is CUDA_ERROR_OUT_OF_MEMORY.
const outOfMemory = 2

func (d *driver) describe(code uint32) string {
	var name, text *byte
	purego.SyscallN(d.getErrorName, uintptr(code), uintptr(unsafe.Pointer(&name)))
	purego.SyscallN(d.getErrorString, uintptr(code), uintptr(unsafe.Pointer(&text)))
	if name == nil || text == nil {
		return fmt.Sprintf("error %d", code)
	}
	return fmt.Sprintf("%s (%s)", goString(name), goString(text))
}

func goString(p *byte) string {
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// cString is s with a terminating zero.
func cString(s string) *byte {
	b := append([]byte(s), 0)
	return &b[0]
}

// Attributes of cuDeviceGetAttribute.
const (
	attrMultiprocessors   = 16
	attrComputeMajor      = 75
	attrComputeMinor      = 76
	attrSharedPerBlockMax = 97
)

func (d *driver) attribute(device int32, attr uintptr) (int, error) {
	var v int32
	err := d.call("cuDeviceGetAttribute", d.deviceGetAttribute, uintptr(unsafe.Pointer(&v)), attr, uintptr(device))
	return int(v), err
}
