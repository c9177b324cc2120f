package simd

// vecKernels are the vector functions of one Level. The public functions have already checked
// lengths; the Go versions in vec_portable.go define what each computes.
type vecKernels struct {
	exp, sigmoid, silu, softplus func(dst, x []float32)
	siluGrad                     func(dst, x, dy []float32)
	add, mul, mulAdd             func(dst, a, b []float32)
	scale                        func(dst []float32, a float32, x []float32)
	axpy                         func(a float32, x, y []float32)
	swiGLU                       func(dst, gate, up []float32)
	swiGLUGrad                   func(dgate, dup, gate, up, dy []float32)
	gatedUpdate                  func(dst, x, gate, h []float32)
	gatedUpdateGrad              func(dx, dgate, dh, x, gate, h, dy []float32)
	rotate                       func(y, x, cos, sin []float32)

	dot        func(a, b []float32) float32
	dot3       func(a, b, c []float32) float32
	sum        func(x []float32) float32
	sumSquares func(x []float32) float64
	max        func(x []float32) float32
	softmaxExp func(dst, x []float32, max float32) float32

	scaleMul    func(dst []float32, a float32, x, w []float32)
	rmsNormGrad func(dx, dw, x, w, dy []float32, rstd, c float32)
	adamW       func(p, g, m, v []float32, decay, gradScale, b1, c1, b2, c2, rsqrtBC2, eps, step float32)

	convSiLU     func(dst, bias, w []float32, wStride int, x []float32, xStride, taps int)
	convSiLUGrad func(dpre, dw, dbias, dy, bias, w []float32, wStride int, x []float32, xStride, taps int)
	convInput    func(dx, w []float32, wStride int, dpre []float32, dpreStride, taps int)

	// The convolution with convTaps taps, down one vector of 16 channels for `steps` rows; nil if a
	// level has none. x starts convTaps-1 rows before y and dy, and so does dx: on entry its first
	// rows hold gradients of the pre-activation, and on return its last rows do, for the rows that
	// follow.
	convSiLUColumn     func(y []float32, yStride int, bias, w []float32, wStride int, x []float32, xStride, steps int)
	convSiLUGradColumn func(dx []float32, dxStride int, dw, dbias, dy []float32, dyStride int, bias, w []float32, wStride int, x []float32, xStride, steps int)

	fmas  func(rounds int)
	triad func(dst []float32, a float32, x, y []float32)
}

// vec returns the vector functions of the active Level.
func vec() *vecKernels { return &vecTable[Active()] }

var vecPortable = vecKernels{
	exp: expGo, sigmoid: sigmoidGo, silu: siluGo, softplus: softplusGo,
	siluGrad: siluGradGo,
	add:      addGo, mul: mulGo, mulAdd: mulAddGo,
	scale:  scaleGo,
	axpy:   axpyGo,
	swiGLU: swiGLUGo, swiGLUGrad: swiGLUGradGo,
	gatedUpdate: gatedUpdateGo, gatedUpdateGrad: gatedUpdateGradGo,
	rotate: rotateGo,
	dot:    dotGo, dot3: dot3Go, sum: sumGo, sumSquares: sumSquaresGo, max: maxGo,
	softmaxExp: softmaxExpGo,
	scaleMul:   scaleMulGo, rmsNormGrad: rmsNormGradGo,
	adamW:    adamWGo,
	convSiLU: convSiLUGo, convSiLUGrad: convSiLUGradGo, convInput: convInputGo,
	fmas: fmasGo, triad: triadGo,
}
