package simd

import (
	"fmt"
)

// ScanChunk is the number of timesteps between the states that ScanForward saves for ScanBackward.
// The working set of ScanBackward for a chunk fits in the L1 cache; twice as many timesteps made it
// 10% slower.
const ScanChunk = 32

// ScanArgs are the operands of Mamba's selective scan (S6, arXiv 2312.00752, algorithm 2) over one sequence.
// With N states per channel and 0 the first timestep:
//
//	delta[t,c] = softplus(Dt[t,c] + DtBias[c])
//	h[t,n,c]   = exp(delta[t,c] * A[n,c]) * h[t-1,n,c] + delta[t,c] * B[t,n] * U[t,c]
//	y[t,c]     = sum_n h[t,n,c] * C[t,n] + D[c] * U[t,c]
//	Y[t,c]     = y[t,c] * silu(Z[t,c])
//
// Everything with states and channels has the layout [N][Channels], so that channels fill vector
// registers.
// Everything that has states and channels is laid out [N][Channels], so that channels fill vector registers.
type ScanArgs struct {
	T, Channels, N int

	U, Dt  Rows      // [T][Channels]
	Z      Rows      // [T][Channels]; without Data, there is no gate and Y is y
	B, C   Rows      // [T][N]
	A      []float32 // [N][Channels], at most 0: -exp(A_log)
	D      []float32 // [Channels]
	DtBias []float32 // [Channels]

	Y Rows // [T][Channels], written by ScanForward; not read by ScanBackward

	// State is h, [N][Channels]: ScanForward reads h[-1] from it and writes h[T-1] to it. If it is
	// nil, h[-1] is 0.
	State []float32
	// Saved holds the states before timesteps 0, ScanChunk, 2*ScanChunk, ...: ScanSavedSize
	// elements that ScanForward writes and ScanBackward reads. nil if no backward pass follows.
	Saved []float32
}

// ScanGrads are what ScanBackward reads and writes besides ScanArgs.
type ScanGrads struct {
	DY     Rows // [T][Channels], the gradient of Y
	DU     Rows // [T][Channels], written
	DDt    Rows // [T][Channels], written: the gradient of Dt, before its bias
	DZ     Rows // [T][Channels], written if there is a Z
	DB, DC Rows // [T][N], to which the range's channels are added

	DA      []float32 // [N][Channels], added to
	DD      []float32 // [Channels], added to
	DDtBias []float32 // [Channels], added to
}

// ScanSavedSize returns the number of elements of ScanArgs.Saved.
func ScanSavedSize(t, channels, n int) int {
	return (t + ScanChunk - 1) / ScanChunk * n * channels
}

func (a *ScanArgs) check(c0, c1 int) {
	if a.N < 1 {
		panic(fmt.Sprintf("simd: selective scan with %d states", a.N))
	}
	checkRange("selective scan channels", c0, c1, a.Channels)
	a.U.check("selective scan U", a.T, a.Channels)
	a.Dt.check("selective scan Dt", a.T, a.Channels)
	if a.gated() {
		a.Z.check("selective scan Z", a.T, a.Channels)
	}
	a.B.check("selective scan B", a.T, a.N)
	a.C.check("selective scan C", a.T, a.N)
	checkSize("selective scan A", a.A, a.N*a.Channels)
	checkSize("selective scan D", a.D, a.Channels)
	checkSize("selective scan DtBias", a.DtBias, a.Channels)
	if a.Saved != nil {
		checkSize("selective scan Saved", a.Saved, ScanSavedSize(a.T, a.Channels, a.N))
	}
}

func (a *ScanArgs) gated() bool { return a.Z.Data != nil }

// saved returns the states before chunk k as rows of channels.
func (a *ScanArgs) saved(k int) Rows {
	size := a.N * a.Channels
	return Rows{a.Saved[k*size : (k+1)*size], a.Channels}
}
