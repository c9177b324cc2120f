package simd

import "fmt"

// ConvArgs are the operands of the causal depthwise convolution with SiLU of one sequence,
//
//	Y[t,c] = silu(Bias[c] + sum_k W[k,c] * X[t-K+1+k, c])
//
// with rows before the first one taken from Tail.
type ConvArgs struct {
	T, Channels, K int
	X, Y           Rows      // [T][Channels]
	W              []float32 // [K][Channels]: see ConvTaps; row K-1 multiplies the current timestep
	Bias           []float32 // [Channels]
	Tail           []float32 // [K-1][Channels], the inputs before row 0, oldest first; nil means zeros
}

// ConvGrads are what ConvSiLUBackward reads and writes besides ConvArgs.
type ConvGrads struct {
	DY    Rows      // [T][Channels], the gradient of Y
	DX    Rows      // [T][Channels], written
	DW    []float32 // [K][Channels], added to: see ConvTapsGrad
	DBias []float32 // [Channels], added to
}

// convBlock is the number of channels that a convolution processes through all timesteps before it
// continues with the next ones: the rows that successive timesteps share, and the taps, stay in the
// L1 cache.
const convBlock = 1024

const (
	// convTaps is the number of taps for which there is a kernel that goes down a column of
	// channels with everything in registers: Mamba's.
	convTaps    = 4
	convColumns = 16 // channels of a column
	// convRows is the number of rows of one column before the next column follows: few enough to
	// stay in the caches.
	convRows = 32
)

// inColumns returns the end of the channels from c0 on that are processed in columns, after the
// first rows.
func (a *ConvArgs) inColumns(k *vecKernels, c0, c1 int) int {
	if k.convSiLUColumn == nil || a.K != convTaps || a.T < convTaps {
		return c0
	}
	return c1 - (c1-c0)%convColumns
}

// ConvTaps transposes the taps w [channels][k], the layout of a Conv1d weight, to dst
// [k][channels].
func ConvTaps(dst, w []float32, channels, k int) {
	checkSize("ConvTaps: dst", dst, channels*k)
	checkSize("ConvTaps: w", w, channels*k)
	for c := range channels {
		for j := range k {
			dst[j*channels+c] = w[c*k+j]
		}
	}
}

// ConvTapsGrad adds dtaps [k][channels], the gradient of transposed taps, to dw [channels][k].
func ConvTapsGrad(dw, dtaps []float32, channels, k int) {
	checkSize("ConvTapsGrad: dw", dw, channels*k)
	checkSize("ConvTapsGrad: dtaps", dtaps, channels*k)
	for c := range channels {
		for j := range k {
			dw[c*k+j] += dtaps[j*channels+c]
		}
	}
}

// ConvSiLUForward computes channels [c0, c1) of Y.
func ConvSiLUForward(a *ConvArgs, c0, c1 int) {
	a.check(c0, c1)
	a.Y.check("ConvSiLUForward: Y", a.T, a.Channels)
	for lo := c0; lo < c1; lo += convBlock {
		a.forward(lo, min(lo+convBlock, c1))
	}
}

func (a *ConvArgs) forward(c0, c1 int) {
	k := vec()
	end := a.inColumns(k, c0, c1)
	if c0 < end {
		a.forwardRows(k, convTaps-1, c0, end)
	}
	for t := convTaps - 1; t < a.T; t += convRows {
		for c := c0; c < end; c += convColumns {
			k.convSiLUColumn(a.Y.Data[t*a.Y.Stride+c:], a.Y.Stride, a.Bias[c:], a.W[c:], a.Channels,
				a.X.Data[(t-convTaps+1)*a.X.Stride+c:], a.X.Stride, min(convRows, a.T-t))
		}
	}
	if end < c1 {
		a.forwardRows(k, a.T, end, c1)
	}
}

// forwardRows computes the first `rows` rows.
func (a *ConvArgs) forwardRows(k *vecKernels, rows, c0, c1 int) {
	bias := a.Bias[c0:c1]
	for t := range rows {
		y := a.Y.row(t, c0, c1)
		past := min(t, a.K-1)
		if past < a.K-1 && a.Tail != nil {
			a.preWithTail(k, y, t, c0, c1)
			k.silu(y, y)
			continue
		}
		k.convSiLU(y, bias, a.W[(a.K-1-past)*a.Channels+c0:], a.Channels,
			a.X.Data[(t-past)*a.X.Stride+c0:], a.X.Stride, past+1)
	}
}

// preWithTail sets pre to the input of the SiLU at one of the first K-1 timesteps, whose taps reach
// into Tail.
func (a *ConvArgs) preWithTail(k *vecKernels, pre []float32, t, c0, c1 int) {
	copy(pre, a.Bias[c0:c1])
	for j := range a.K {
		k.mulAdd(pre, a.W[j*a.Channels+c0:j*a.Channels+c1], a.input(t-a.K+1+j, c0, c1))
	}
}

// input returns row t of X, or of Tail if t is negative.
func (a *ConvArgs) input(t, c0, c1 int) []float32 {
	if t < 0 {
		return Rows{a.Tail, a.Channels}.row(t+a.K-1, c0, c1)
	}
	return a.X.row(t, c0, c1)
}

// ConvSiLUBackward computes the gradients of channels [c0, c1) and recomputes Y's pre-activation. Y
// isn't read. There is no gradient of Tail.
func ConvSiLUBackward(a *ConvArgs, g *ConvGrads, c0, c1 int) {
	a.check(c0, c1)
	g.DY.check("ConvSiLUBackward: DY", a.T, a.Channels)
	g.DX.check("ConvSiLUBackward: DX", a.T, a.Channels)
	checkSize("ConvSiLUBackward: DW", g.DW, a.K*a.Channels)
	checkSize("ConvSiLUBackward: DBias", g.DBias, a.Channels)
	for lo := c0; lo < c1; lo += convBlock {
		a.backward(g, lo, min(lo+convBlock, c1))
	}
}

// backward first writes the gradient of the pre-activation to DX; row t of DX is completed once the
// K-1 rows after it are known and none of them needs its old contents any more.
func (a *ConvArgs) backward(g *ConvGrads, c0, c1 int) {
	k := vec()
	end := a.inColumns(k, c0, c1)
	if c0 < end {
		a.backwardRows(k, g, convTaps-1, c0, end)
	}
	for t := convTaps - 1; t < a.T; t += convRows {
		for c := c0; c < end; c += convColumns {
			before := t - convTaps + 1
			k.convSiLUGradColumn(g.DX.Data[before*g.DX.Stride+c:], g.DX.Stride, g.DW[c:], g.DBias[c:],
				g.DY.Data[t*g.DY.Stride+c:], g.DY.Stride, a.Bias[c:], a.W[c:], a.Channels,
				a.X.Data[before*a.X.Stride+c:], a.X.Stride, min(convRows, a.T-t))
		}
	}
	if end < c1 {
		a.backwardRows(k, g, a.T, end, c1)
	}
	for t := max(0, a.T-a.K+1); t < a.T; t++ {
		a.inputGrad(k, g, t, c0, c1)
	}
}

// backwardRows processes the first `rows` rows, and completes the rows of DX that it can.
func (a *ConvArgs) backwardRows(k *vecKernels, g *ConvGrads, rows, c0, c1 int) {
	bias, dbias := a.Bias[c0:c1], g.DBias[c0:c1]
	for t := range rows {
		dpre, dy := g.DX.row(t, c0, c1), g.DY.row(t, c0, c1)
		past := min(t, a.K-1)
		if past < a.K-1 && a.Tail != nil {
			a.preWithTail(k, dpre, t, c0, c1)
			k.siluGrad(dpre, dpre, dy)
			k.add(dbias, dbias, dpre)
			for j := range a.K {
				k.mulAdd(g.DW[j*a.Channels+c0:j*a.Channels+c1], dpre, a.input(t-a.K+1+j, c0, c1))
			}
		} else {
			w := (a.K-1-past)*a.Channels + c0
			k.convSiLUGrad(dpre, g.DW[w:], dbias, dy, bias, a.W[w:], a.Channels,
				a.X.Data[(t-past)*a.X.Stride+c0:], a.X.Stride, past+1)
		}
		if t >= a.K-1 {
			a.inputGrad(k, g, t-a.K+1, c0, c1)
		}
	}
}

func (a *ConvArgs) inputGrad(k *vecKernels, g *ConvGrads, t, c0, c1 int) {
	taps := min(a.K, a.T-t)
	k.convInput(g.DX.row(t, c0, c1), a.W[(a.K-taps)*a.Channels+c0:], a.Channels,
		g.DX.Data[t*g.DX.Stride+c0:], g.DX.Stride, taps)
}

func (a *ConvArgs) check(c0, c1 int) {
	if a.K < 1 {
		panic(fmt.Sprintf("simd: convolution of %d taps", a.K))
	}
	checkRange("convolution channels", c0, c1, a.Channels)
	a.X.check("convolution X", a.T, a.Channels)
	checkSize("convolution W", a.W, a.K*a.Channels)
	checkSize("convolution Bias", a.Bias, a.Channels)
	if a.Tail != nil {
		checkSize("convolution Tail", a.Tail, (a.K-1)*a.Channels)
	}
}
