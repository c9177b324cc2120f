package simd

// Kernels share a work array of rows [ScanChunk][lanes].
const (
	scanDelta   = iota // softplus(dt + bias)
	scanDeltaU         // delta * u
	scanSig            // sigmoid(dt + bias), the slope of delta
	scanY              // the output before its gate
	scanGY             // the gradient of y
	scanS              // the gradient of delta*u
	scanDDelta         // the gradient of delta through the decays
	scanHistory        // what statesGrad keeps for scanStatesAtOnce states

	scanStatesAtOnce = 2
	scanForwardWork  = scanGY
	scanBackwardWork = scanHistory + 2*scanStatesAtOnce
)

// scanRow returns row i of the work array.
func scanRow(work []float32, lanes, i int) []float32 {
	return work[i*ScanChunk*lanes : (i+1)*ScanChunk*lanes]
}

// scanMaxLanes is the largest number of lanes of any Level: the size of scratch does not depend on
// the Level.
const scanMaxLanes = 16

// scanKernels are the selective scan's inner loops of one Level. Each processes one vector of lanes
// channels over `steps` timesteps, at least 1 and at most ScanChunk; the Go versions in
// scan_portable.go define what each computes. Operands with the layout [N][channels] have rows of
// width elements. ahead lists what to prefetch in the meantime: see scanAhead.
type scanKernels struct {
	lanes        int
	statesAtOnce int // the number of states whose products for dB share a row of sums, likewise for dC

	delta      func(work, u []float32, uStride int, dt []float32, dtStride int, bias, skip []float32, steps int)
	states     func(work, h, decay []float32, width int, b []float32, bStride int, c []float32, cStride int, steps, n int, ahead []uintptr)
	gate       func(out []float32, outStride int, y []float32, yStride int, z []float32, zStride, steps int)
	statesGrad func(work, sums, dDecay, dh, h, decay []float32, width int, b []float32, bStride int, c []float32, cStride int, steps, n int, ahead []uintptr)
	gateGrad   func(dz []float32, dzStride int, work, dy []float32, dyStride int, z []float32, zStride, steps int)
	deltaGrad  func(du []float32, duStride int, ddt []float32, ddtStride int, dBias, dSkip, work, u []float32, uStride int, skip []float32, steps int)
	addLanes   func(dB []float32, dBStride int, dC []float32, dCStride int, sums []float32, steps, n int)
}

// sumRows returns the number of rows of the sums of n states.
func (k *scanKernels) sumRows(n int) int { return 2 * (n/k.statesAtOnce + n%k.statesAtOnce) }

// scan returns the scan kernels of the active Level.
func scan() *scanKernels { return &scanTable[Active()] }

var scanPortable = scanKernels{
	lanes: scanLanesGo, statesAtOnce: 1,
	delta:      scanDeltaGo,
	states:     scanStatesGo,
	gate:       scanGateGo,
	statesGrad: scanStatesGradGo,
	gateGrad:   scanGateGradGo,
	deltaGrad:  scanDeltaGradGo,
	addLanes:   scanAddLanesGo,
}
