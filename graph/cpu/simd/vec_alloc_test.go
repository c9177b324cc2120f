package simd

import "testing"

// TestVectorAllocations: no vector function, convolution or scan allocates.
func TestVectorAllocations(t *testing.T) {
	const n = 70
	x, y, z, w, v := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	scan := newScanCase(1, 40, 21, 3, true)
	args, _ := scan.args()
	rows := func() Rows { return newSpread(nil, scan.T, scan.D, 0).Rows }
	grads := &ScanGrads{
		DY: rows(), DU: rows(), DDt: rows(), DZ: rows(),
		DB: newSpread(nil, scan.T, scan.N, 0).Rows, DC: newSpread(nil, scan.T, scan.N, 0).Rows,
		DA: make([]float32, scan.N*scan.D), DD: make([]float32, scan.D), DDtBias: make([]float32, scan.D),
	}
	scratch := make([]float32, max(ScanForwardScratch(scan.D, scan.N), ScanBackwardScratch(scan.D, scan.N)))
	conv := &ConvArgs{
		T: 9, Channels: 7, K: 3, X: Rows{make([]float32, 63), 7}, Y: Rows{make([]float32, 63), 7},
		W: make([]float32, 21), Bias: make([]float32, 7), Tail: make([]float32, 14),
	}
	convGrads := &ConvGrads{DY: Rows{make([]float32, 63), 7}, DX: Rows{make([]float32, 63), 7}, DW: make([]float32, 21), DBias: make([]float32, 7)}
	step := AdamWStep{BiasCorrection1: 1, BiasCorrection2: 1}
	eachLevel(t, func(t *testing.T) {
		for name, f := range map[string]func(){
			"Exp": func() { Exp(x, y) }, "Sigmoid": func() { Sigmoid(x, y) }, "SiLU": func() { SiLU(x, y) },
			"SiLUGrad": func() { SiLUGrad(x, y, z) }, "Softplus": func() { Softplus(x, y) },
			"Add": func() { Add(x, y, z) }, "Mul": func() { Mul(x, y, z) }, "MulAdd": func() { MulAdd(x, y, z) },
			"Scale": func() { Scale(x, 2, y) }, "Axpy": func() { Axpy(2, x, y) },
			"SwiGLU": func() { SwiGLU(x, y, z) }, "SwiGLUGrad": func() { SwiGLUGrad(x, y, z, w, v) },
			"GatedUpdate": func() { GatedUpdate(x, y, z, w) }, "Rotate": func() { Rotate(x, y, z[:n/2], w[:n/2]) },
			"Dot": func() { Dot(x, y) }, "Sum": func() { Sum(x) }, "SumSquares": func() { SumSquares(x) }, "Max": func() { Max(x) },
			"SoftmaxExp": func() { SoftmaxExp(x, y, 1) },
			"RMSNormRow": func() { RMSNormRow(x, y, z, 1) }, "RMSNormRowGrad": func() { RMSNormRowGrad(x, y, z, w, v, 1) },
			"AdamW":           func() { AdamW(x, y, z, w, &step) },
			"ConvSiLUForward": func() { ConvSiLUForward(conv, 0, 7) }, "ConvSiLUBackward": func() { ConvSiLUBackward(conv, convGrads, 0, 7) },
			"ScanForward":  func() { ScanForward(args, 0, scan.D, scratch) },
			"ScanBackward": func() { ScanBackward(args, grads, 0, scan.D, scratch) },
		} {
			if n := testing.AllocsPerRun(3, f); n != 0 {
				t.Errorf("%s allocates %g times a call", name, n)
			}
		}
	})
}
