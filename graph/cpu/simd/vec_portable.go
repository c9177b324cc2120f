package simd

import "math"

// The functions here are the portable Level, and define what the assembly functions of the same
// name compute.

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

func sigmoid32(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }

// siluSlope32 is the derivative of x sigmoid(x).
func siluSlope32(x float32) float32 {
	s := 1 / (1 + math.Exp(-float64(x)))
	return float32(s + float64(x)*s*(1-s))
}

func softplus32(x float32) float32 {
	if x > 20 {
		return x
	}
	return float32(math.Log1p(math.Exp(float64(x))))
}

func expGo(dst, x []float32) {
	for i, v := range x {
		dst[i] = exp32(v)
	}
}

func sigmoidGo(dst, x []float32) {
	for i, v := range x {
		dst[i] = sigmoid32(v)
	}
}

func siluGo(dst, x []float32) {
	for i, v := range x {
		dst[i] = v * sigmoid32(v)
	}
}

func siluGradGo(dst, x, dy []float32) {
	for i, v := range x {
		dst[i] = dy[i] * siluSlope32(v)
	}
}

func softplusGo(dst, x []float32) {
	for i, v := range x {
		dst[i] = softplus32(v)
	}
}

func addGo(dst, a, b []float32) {
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func mulGo(dst, a, b []float32) {
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func mulAddGo(dst, a, b []float32) {
	for i := range dst {
		dst[i] += a[i] * b[i]
	}
}

func scaleGo(dst []float32, a float32, x []float32) {
	for i, v := range x {
		dst[i] = a * v
	}
}

func axpyGo(a float32, x, y []float32) {
	for i, v := range x {
		y[i] += a * v
	}
}

func swiGLUGo(dst, gate, up []float32) {
	for i, g := range gate {
		dst[i] = g * sigmoid32(g) * up[i]
	}
}

func swiGLUGradGo(dgate, dup, gate, up, dy []float32) {
	for i, g := range gate {
		d := dy[i]
		dgate[i] = d * up[i] * siluSlope32(g)
		dup[i] = d * (g * sigmoid32(g))
	}
}

// portableLanes is the number of partial sums of a portable reduction: enough to keep the rounding error
// of a long sum small.
const portableLanes = 8

func reduceLanes(s *[portableLanes]float32) float32 {
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

func dotGo(a, b []float32) float32 {
	var s [portableLanes]float32
	for i, v := range a {
		s[i%portableLanes] += v * b[i]
	}
	return reduceLanes(&s)
}

func dot3Go(a, b, c []float32) float32 {
	var s [portableLanes]float32
	for i, v := range a {
		s[i%portableLanes] += v * b[i] * c[i]
	}
	return reduceLanes(&s)
}

func sumGo(x []float32) float32 {
	var s [portableLanes]float32
	for i, v := range x {
		s[i%portableLanes] += v
	}
	return reduceLanes(&s)
}

func sumSquaresGo(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

func maxGo(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

func softmaxExpGo(dst, x []float32, max float32) float32 {
	var s [portableLanes]float32
	for i, v := range x {
		e := exp32(v - max)
		dst[i] = e
		s[i%portableLanes] += e
	}
	return reduceLanes(&s)
}

func scaleMulGo(dst []float32, a float32, x, w []float32) {
	for i, v := range x {
		dst[i] = a * v * w[i]
	}
}

func rmsNormGradGo(dx, dw, x, w, dy []float32, rstd, c float32) {
	for i, v := range x {
		d := rstd * dy[i]
		dx[i] = d*w[i] - c*v
		dw[i] += d * v
	}
}

func adamWGo(p, g, m, v []float32, decay, gradScale, b1, c1, b2, c2, rsqrtBC2, eps, step float32) {
	for i, gi := range g {
		gi *= gradScale
		mi := b1*m[i] + c1*gi
		vi := b2*v[i] + c2*gi*gi
		m[i], v[i] = mi, vi
		denominator := float32(math.Sqrt(float64(vi)))*rsqrtBC2 + eps
		p[i] = decay*p[i] - step*(mi/denominator)
	}
}

func gatedUpdateGo(dst, x, gate, h []float32) {
	for i, v := range x {
		dst[i] = v + sigmoid32(gate[i])*(h[i]*sigmoid32(h[i])-v)
	}
}

func gatedUpdateGradGo(dx, dgate, dh, x, gate, h, dy []float32) {
	for i, v := range x {
		open, closed, d, w := sigmoid32(gate[i]), sigmoid32(-gate[i]), dy[i], h[i]
		dgate[i] = d * open * (w*sigmoid32(w) - v) * closed
		dh[i] = d * open * siluSlope32(w)
		dx[i] = d * closed
	}
}

func rotateGo(y, x, cos, sin []float32) {
	n := len(cos)
	for i, c := range cos {
		a, b := x[i], x[n+i]
		y[i], y[n+i] = a*c-b*sin[i], b*c+a*sin[i]
	}
}

// convPre is the input of the convolution's SiLU for channel c.
func convPre(c int, bias, w []float32, wStride int, x []float32, xStride, taps int) float32 {
	s := bias[c]
	for k := range taps {
		s += w[k*wStride+c] * x[k*xStride+c]
	}
	return s
}

// convSiLUGo: dst[c] = silu(bias[c] + sum_k w[k,c] * x[k,c]).
func convSiLUGo(dst, bias, w []float32, wStride int, x []float32, xStride, taps int) {
	for c := range dst {
		s := convPre(c, bias, w, wStride, x, xStride, taps)
		dst[c] = s * sigmoid32(s)
	}
}

// convSiLUGradGo: dpre[c] = dy[c] * silu'(pre[c]), dw[k,c] += dpre[c] * x[k,c], dbias[c] += dpre[c].
// dw has w's stride.
func convSiLUGradGo(dpre, dw, dbias, dy, bias, w []float32, wStride int, x []float32, xStride, taps int) {
	for c := range dpre {
		pre := convPre(c, bias, w, wStride, x, xStride, taps)
		d := dy[c] * siluSlope32(pre)
		dpre[c] = d
		dbias[c] += d
		for k := range taps {
			dw[k*wStride+c] += d * x[k*xStride+c]
		}
	}
}

// convInputGo: dx[c] = sum_j w[taps-1-j,c] * dpre[j,c]. dx may be dpre's row 0.
func convInputGo(dx, w []float32, wStride int, dpre []float32, dpreStride, taps int) {
	for c := range dx {
		var s float32
		for j := range taps {
			s += w[(taps-1-j)*wStride+c] * dpre[j*dpreStride+c]
		}
		dx[c] = s
	}
}
