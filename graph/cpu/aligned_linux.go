package cpu

import (
	"syscall"
	"unsafe"
)

// wantHugePages asks the kernel to use huge pages for x. If it has none, x stays on small pages.
func wantHugePages(x []float32) {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x)/hugePage*hugePage)
	_ = syscall.Madvise(bytes, syscall.MADV_HUGEPAGE)
}
