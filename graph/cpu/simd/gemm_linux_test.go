package simd

import (
	"runtime/debug"
	"syscall"
	"testing"
	"unsafe"
)

// atPageEnd returns a copy of x that ends right before an unreadable page.
func atPageEnd(t *testing.T, x []float32) []float32 {
	t.Helper()
	page := syscall.Getpagesize()
	size := roundUp(4*len(x), page)
	mem, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map %d bytes: %v", size+page, err)
	}
	t.Cleanup(func() { syscall.Munmap(mem) })
	if err := syscall.Mprotect(mem[size:], syscall.PROT_NONE); err != nil {
		t.Fatalf("protect a page: %v", err)
	}
	y := unsafe.Slice((*float32)(unsafe.Pointer(&mem[size-4*len(x)])), len(x))
	copy(y, x)
	return y[:len(y):len(y)]
}

// TestGemmReadsInside fails if a kernel accesses memory after an operand or the workspace.
func TestGemmReadsInside(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, size := range gemmSizes {
			if size[0]*size[1]*size[2] == 0 {
				continue
			}
			eachTranspose(size, func(g Gemm) {
				c := newGemmCase(g, 1)
				defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
				defer func() {
					if err := recover(); err != nil {
						t.Fatalf("%s: %v", c, err)
					}
				}()
				c.Serial(atPageEnd(t, c.a), atPageEnd(t, c.b), atPageEnd(t, c.c), atPageEnd(t, c.scratch[:c.Workspace(1)]))
			})
		}
	})
}
