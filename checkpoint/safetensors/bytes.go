package safetensors

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// littleEndian reports whether this machine stores numbers as the format does, so that tensors need
// no conversion.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// bytesOf views s as bytes in the machine's own order, without a copy.
func bytesOf[T float32 | int32](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*len(s))
}

// swap4 reverses the bytes of every 4-byte element of b, in place.
func swap4(b []byte) {
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
}
