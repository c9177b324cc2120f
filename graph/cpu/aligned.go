package cpu

import "unsafe"

const (
	line     = 64      // bytes in a cache line
	hugePage = 2 << 20 // bytes in a huge page of x86 and of most others
)

// aligned is a zeroed slice that starts on a cache line, or on a huge page if it is long: each row
// of a wide tensor is on a page of its own, and the TLB holds only a few thousand pages.
func aligned(n int) []float32 {
	granule := line
	if 4*n >= hugePage {
		granule = hugePage
	}
	s := make([]float32, n+granule/4)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(s)))%uintptr(granule)) / 4
	s = s[skip : skip+n : skip+n]
	if granule == hugePage {
		wantHugePages(s)
	}
	return s
}
