package gguf

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// AppendQ8_0 appends x, in complete blocks, as Q8_0: each block is divided by a scale that maps its
// largest magnitude to 127, and rounded. A number whose scale is too large for float16, or that is
// not finite, is an error.
func AppendQ8_0(b []byte, x []float32) ([]byte, error) {
	for ; len(x) > 0; x = x[BlockSize:] {
		largest := float32(0)
		for _, v := range x[:BlockSize] {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		scale := largest / 127
		half := float16.Fromfloat32(scale)
		switch {
		case largest != largest || math.IsInf(float64(largest), 0):
			return nil, fmt.Errorf("%v can't be written as q8_0", largest)
		case half.IsInf(0):
			return nil, fmt.Errorf("%v is beyond q8_0's largest number, %v", largest, float32(127*65504))
		}
		inverse := float32(0)
		if half != 0 { // otherwise the block is read as zeros, and 1 / scale may be infinite
			inverse = 1 / scale
		}
		b = binary.LittleEndian.AppendUint16(b, half.Bits())
		for _, v := range x[:BlockSize] {
			b = append(b, byte(int8(math.Round(float64(v*inverse)))))
		}
	}
	return b, nil
}
