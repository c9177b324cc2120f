package cpu

import (
	"testing"
	"unsafe"
)

func TestAligned(t *testing.T) {
	for n := range 40 {
		s := aligned(n)
		if len(s) != n || cap(s) != n {
			t.Errorf("%d elements: length %d, capacity %d", n, len(s), cap(s))
		}
		if n > 0 && uintptr(unsafe.Pointer(&s[0]))%64 != 0 {
			t.Errorf("%d elements start at %#x", n, uintptr(unsafe.Pointer(&s[0])))
		}
	}
}
