package simd

//go:generate go run ./gen/vec -out vec_asm_amd64.s -stubs vec_asm_amd64.go -pkg simd

var vecTable = [...]vecKernels{
	Portable: vecPortable,
	AVX2: {
		exp: expAVX2, sigmoid: sigmoidAVX2, silu: siluAVX2, softplus: softplusAVX2,
		siluGrad: siluGradAVX2,
		add:      addAVX2, mul: mulAVX2, mulAdd: mulAddAVX2,
		scale:  scaleAVX2,
		axpy:   axpyAVX2,
		swiGLU: swiGLUAVX2, swiGLUGrad: swiGLUGradAVX2,
		gatedUpdate: gatedUpdateAVX2, gatedUpdateGrad: gatedUpdateGradAVX2,
		rotate: rotateAVX2,
		dot:    dotAVX2, dot3: dot3AVX2, sum: sumAVX2, sumSquares: sumSquaresAVX2, max: maxAVX2,
		softmaxExp: softmaxExpAVX2,
		scaleMul:   scaleMulAVX2, rmsNormGrad: rmsNormGradAVX2,
		adamW:    adamWAVX2,
		convSiLU: convSiLUAVX2, convSiLUGrad: convSiLUGradAVX2, convInput: convInputAVX2,
		fmas: fmasAVX2, triad: triadAVX2,
	},
	AVX512: {
		exp: expAVX512, sigmoid: sigmoidAVX512, silu: siluAVX512, softplus: softplusAVX512,
		siluGrad: siluGradAVX512,
		add:      addAVX512, mul: mulAVX512, mulAdd: mulAddAVX512,
		scale:  scaleAVX512,
		axpy:   axpyAVX512,
		swiGLU: swiGLUAVX512, swiGLUGrad: swiGLUGradAVX512,
		gatedUpdate: gatedUpdateAVX512, gatedUpdateGrad: gatedUpdateGradAVX512,
		rotate: rotateAVX512,
		dot:    dotAVX512, dot3: dot3AVX512, sum: sumAVX512, sumSquares: sumSquaresAVX512, max: maxAVX512,
		softmaxExp: softmaxExpAVX512,
		scaleMul:   scaleMulAVX512, rmsNormGrad: rmsNormGradAVX512,
		adamW:    adamWAVX512,
		convSiLU: convSiLUAVX512, convSiLUGrad: convSiLUGradAVX512, convInput: convInputAVX512,
		convSiLUColumn: convSiLUColumnAVX512, convSiLUGradColumn: convSiLUGradColumnAVX512,
		fmas: fmasAVX512, triad: triadAVX512,
	},
}
