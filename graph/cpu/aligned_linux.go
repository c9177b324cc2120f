package cpu

import (
	"syscall"
	"unsafe"
)

// wantHugePages asks for x to lie on huge pages. Where there are none it lies on small ones.
func wantHugePages(x []float32) {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x)/hugePage*hugePage)
	_ = syscall.Madvise(bytes, syscall.MADV_HUGEPAGE)
}
