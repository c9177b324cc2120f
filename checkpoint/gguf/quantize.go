package gguf

import (
	"encoding/binary"
	"math"

	"github.com/x448/float16"
)

// AppendQ8_0 appends x, in complete blocks, as Q8_0: each block is divided by a scale that maps its
// largest magnitude to 127, and rounded.
func AppendQ8_0(b []byte, x []float32) []byte {
	for ; len(x) > 0; x = x[BlockSize:] {
		largest := float32(0)
		for _, v := range x[:BlockSize] {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		scale := largest / 127
		inverse := float32(0)
		if scale > 0 {
			inverse = 1 / scale
		}
		b = binary.LittleEndian.AppendUint16(b, float16.Fromfloat32(scale).Bits())
		for _, v := range x[:BlockSize] {
			b = append(b, byte(int8(math.Round(float64(v*inverse)))))
		}
	}
	return b
}
