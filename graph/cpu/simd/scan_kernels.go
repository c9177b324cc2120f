package simd

// scanStatesAtOnce is the most states whose history statesGrad keeps at a time.
const scanStatesAtOnce = 2

// scanMaxLanes is the most lanes that any Level has: the size of scratch doesn't depend on the Level.
const scanMaxLanes = 16

// scanKernels are the selective scan's inner loops of one Level. Each works on one vector of lanes
// channels over steps timesteps, at most ScanChunk; the Go versions in scan_portable.go say what each
// computes. Operands without a stride are packed [steps][lanes]; those that lie [N][channels] have width
// between their rows.
type scanKernels struct {
	lanes int

	delta      func(delta, deltaU, sig, y, u []float32, uStride int, dt []float32, dtStride int, bias, skip []float32, steps int)
	states     func(y, h, decay []float32, width int, delta, deltaU, b []float32, bStride int, c []float32, cStride int, steps, n int)
	gate       func(out []float32, outStride int, y []float32, yStride int, z []float32, zStride, steps int)
	statesGrad func(s, ddelta, sumB, sumC, y, dDecay, dh, h, decay []float32, width int, delta, deltaU, gy, b []float32, bStride int, c []float32, cStride int, history []float32, steps, n int)
	gateGrad   func(dz []float32, dzStride int, y, dy []float32, dyStride int, z []float32, zStride, steps int)
	deltaGrad  func(du []float32, duStride int, ddt []float32, ddtStride int, dBias, dSkip, u []float32, uStride int, delta, sig, gy, s, ddelta, skip []float32, steps int)
	addLanes   func(dst []float32, dstStride int, sums []float32, steps, n int)
}

// scan returns the scan kernels of the active Level.
func scan() *scanKernels { return &scanTable[Active()] }

var scanPortable = scanKernels{
	lanes:      scanLanesGo,
	delta:      scanDeltaGo,
	states:     scanStatesGo,
	gate:       scanGateGo,
	statesGrad: scanStatesGradGo,
	gateGrad:   scanGateGradGo,
	deltaGrad:  scanDeltaGradGo,
	addLanes:   scanAddLanesGo,
}
