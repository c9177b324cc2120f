package simd

import "math"

// rounded are the kernels for inputs that are rounded to bfloat16 when they are copied to float32
// panels.
func (k gemmKernels) rounded(round func(dst, src []float32)) *gemmKernels {
	k.round = round
	k.narrow = func(dst, src []float32, width, steps int) { round(dst[:width*steps], src[:width*steps]) }
	return &k
}

var gemmRoundedPortable = gemmPortable.rounded(roundPortable)

// roundPortable rounds to bfloat16, to nearest even. NaN stays NaN.
func roundPortable(dst, src []float32) {
	for i, x := range src {
		if x == x {
			b := math.Float32bits(x)
			x = math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
		}
		dst[i] = x
	}
}

// widenPortable converts len(dst) bfloat16 numbers to float32.
func widenPortable(dst []float32, src []uint16) {
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(src[i]) << 16)
	}
}
