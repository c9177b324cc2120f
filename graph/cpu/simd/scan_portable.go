package simd

const scanLanesGo = 8

// scanDeltaGo prepares a chunk: delta = softplus(dt + bias), deltaU = delta * u, sig = sigmoid(dt + bias),
// which is softplus' slope, and y = skip * u.
func scanDeltaGo(delta, deltaU, sig, y, u []float32, uStride int, dt []float32, dtStride int, bias, skip []float32, steps int) {
	for t := range steps {
		for i := range scanLanesGo {
			v, x := u[t*uStride+i], dt[t*dtStride+i]+bias[i]
			d, p := softplus32(x), t*scanLanesGo+i
			delta[p], deltaU[p], sig[p], y[p] = d, d*v, sigmoid32(x), skip[i]*v
		}
	}
}

// scanStatesGo advances the states: h[n] = exp(delta[t]*decay[n])*h[n] + deltaU[t]*b[t,n], and adds
// c[t,n]*h[n] to y[t].
func scanStatesGo(y, h, decay []float32, width int, delta, deltaU, b []float32, bStride int, c []float32, cStride int, steps, n int) {
	for j := range n {
		for i := range scanLanesGo {
			hj, a := h[j*width+i], decay[j*width+i]
			for t := range steps {
				p := t*scanLanesGo + i
				hj = exp32(delta[p]*a)*hj + deltaU[p]*b[t*bStride+j]
				y[p] += hj * c[t*cStride+j]
			}
			h[j*width+i] = hj
		}
	}
}

// scanGateGo: out = y * silu(z).
func scanGateGo(out []float32, outStride int, y []float32, yStride int, z []float32, zStride, steps int) {
	for t := range steps {
		for i := range scanLanesGo {
			v := z[t*zStride+i]
			out[t*outStride+i] = y[t*yStride+i] * (v * sigmoid32(v))
		}
	}
}

// scanStatesGradGo computes the chunk's states again from h, adding c*h to y as the forward pass does,
// then goes back in time. On entry dh is the gradient that the next chunk sends back to this chunk's last
// state, exp(delta*decay) included; on return it is what this chunk sends to the one before. With gy the
// gradient of y and w[t] = dh[t]*exp(delta[t]*decay)*h[t-1], it adds sum_n dh[t]*b[t,n] to s[t],
// sum_n w[t]*decay to ddelta[t], dh[t]*deltaU[t] to sumB[n,t], gy[t]*h[t] to sumC[n,t] and
// sum_t w[t]*delta[t] to dDecay. sumB and sumC are [n][ScanChunk][lanes]; history is working memory.
func scanStatesGradGo(s, ddelta, sumB, sumC, y, dDecay, dh, h, decay []float32, width int, delta, deltaU, gy, b []float32, bStride int, c []float32, cStride int, history []float32, steps, n int) {
	const span = ScanChunk * scanLanesGo
	decayed := history[:span] // exp(delta*decay) * h[t-1]
	rate := history[span : 2*span]
	for j := range n {
		sumBj, sumCj := sumB[j*span:(j+1)*span], sumC[j*span:(j+1)*span]
		for i := range scanLanesGo {
			hj, a := h[j*width+i], decay[j*width+i]
			for t := range steps {
				p := t*scanLanesGo + i
				rate[p] = exp32(delta[p] * a)
				decayed[p] = rate[p] * hj
				hj = decayed[p] + deltaU[p]*b[t*bStride+j]
				y[p] += hj * c[t*cStride+j]
				sumCj[p] += hj * gy[p]
			}
			carry, da := dh[j*width+i], dDecay[j*width+i]
			for t := steps - 1; t >= 0; t-- {
				p := t*scanLanesGo + i
				carry += gy[p] * c[t*cStride+j]
				w := carry * decayed[p]
				s[p] += carry * b[t*bStride+j]
				ddelta[p] += w * a
				sumBj[p] += carry * deltaU[p]
				da += w * delta[p]
				carry *= rate[p]
			}
			dh[j*width+i], dDecay[j*width+i] = carry, da
		}
	}
}

// scanGateGradGo: dz = dy * y * silu'(z).
func scanGateGradGo(dz []float32, dzStride int, y, dy []float32, dyStride int, z []float32, zStride, steps int) {
	for t := range steps {
		for i := range scanLanesGo {
			v := z[t*zStride+i]
			s := sigmoid32(v)
			dz[t*dzStride+i] = dy[t*dyStride+i] * y[t*scanLanesGo+i] * (s + v*s*(1-s))
		}
	}
}

// scanDeltaGradGo is the gradient of scanDeltaGo: du = skip*gy + delta*s, ddt = (ddelta + u*s) * sig,
// dBias += sum_t ddt, dSkip += sum_t gy*u.
func scanDeltaGradGo(du []float32, duStride int, ddt []float32, ddtStride int, dBias, dSkip, u []float32, uStride int, delta, sig, gy, s, ddelta, skip []float32, steps int) {
	for i := range scanLanesGo {
		db, dd := dBias[i], dSkip[i]
		for t := range steps {
			p, v := t*scanLanesGo+i, u[t*uStride+i]
			x := (ddelta[p] + v*s[p]) * sig[p]
			du[t*duStride+i] = skip[i]*gy[p] + delta[p]*s[p]
			ddt[t*ddtStride+i] = x
			db += x
			dd += gy[p] * v
		}
		dBias[i], dSkip[i] = db, dd
	}
}

// scanAddLanesGo: dst[t,n] += the sum of the lanes of sums[n,t].
func scanAddLanesGo(dst []float32, dstStride int, sums []float32, steps, n int) {
	for j := range n {
		for t := range steps {
			p := (j*ScanChunk + t) * scanLanesGo
			dst[t*dstStride+j] += reduceLanes((*[portableLanes]float32)(sums[p:]))
		}
	}
}
