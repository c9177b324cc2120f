package cpu

import "unsafe"

const (
	line     = 64      // bytes in a cache line
	hugePage = 2 << 20 // bytes in a huge page of x86 and of most others
)

// aligned is a zeroed slice that starts on a cache line, and a long one on a huge page: rows of a wide
// tensor are each on a page of their own, of which the processor remembers the places of few thousand.
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
