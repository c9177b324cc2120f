package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// AppendFloats appends src to dst as little-endian elements of dtype F32, BF16 or F16, each rounded
// to nearest even. A finite number that is too large for the type is an error: it would become
// infinite.
func AppendFloats(dst []byte, d DType, src []float32) ([]byte, error) {
	switch d {
	case F32:
		for _, x := range src {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
		}
	case BF16:
		for _, x := range src {
			h := bfloat16(x)
			if h&0x7fff == 0x7f80 && !math.IsInf(float64(x), 0) {
				return nil, fmt.Errorf("%v is beyond bfloat16's largest number", x)
			}
			dst = binary.LittleEndian.AppendUint16(dst, h)
		}
	case F16:
		for _, x := range src {
			h := float16.Fromfloat32(x)
			if h.IsInf(0) && !math.IsInf(float64(x), 0) {
				return nil, fmt.Errorf("%v is beyond float16's largest number, 65504; use bfloat16", x)
			}
			dst = binary.LittleEndian.AppendUint16(dst, h.Bits())
		}
	default:
		return nil, fmt.Errorf("dtype %q: floats are written as F32, BF16 or F16", string(d))
	}
	return dst, nil
}

// bfloat16 is the upper half of x, rounded to nearest even. NaNs stay NaNs.
func bfloat16(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// widen decodes elements of dtype BF16 or F16.
func widen(dst []float32, src []byte, d DType) {
	for i := range dst {
		h := binary.LittleEndian.Uint16(src[2*i:])
		if d == BF16 {
			dst[i] = math.Float32frombits(uint32(h) << 16)
		} else {
			dst[i] = float16.Frombits(h).Float32()
		}
	}
}
