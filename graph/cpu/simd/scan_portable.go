package simd

const scanLanesGo = 8

func scanRowGo(work []float32, i int) []float32 { return scanRow(work, scanLanesGo, i) }

// scanDeltaGo prepares a chunk: delta, delta*u and sig, and y = skip * u.
func scanDeltaGo(work, u []float32, uStride int, dt []float32, dtStride int, bias, skip []float32, steps int) {
	delta, deltaU := scanRowGo(work, scanDelta), scanRowGo(work, scanDeltaU)
	sig, y := scanRowGo(work, scanSig), scanRowGo(work, scanY)
	for t := range steps {
		for i := range scanLanesGo {
			v, x := u[t*uStride+i], dt[t*dtStride+i]+bias[i]
			d, p := softplus32(x), t*scanLanesGo+i
			delta[p], deltaU[p], sig[p], y[p] = d, d*v, sigmoid32(x), skip[i]*v
		}
	}
}

// scanStatesGo advances the states, h[n] = exp(delta[t]*decay[n])*h[n] + deltaU[t]*b[t,n], and adds
// c[t,n]*h[n] to y[t].
func scanStatesGo(work, h, decay []float32, width int, b []float32, bStride int, c []float32, cStride int, steps, n int, _ []uintptr) {
	delta, deltaU, y := scanRowGo(work, scanDelta), scanRowGo(work, scanDeltaU), scanRowGo(work, scanY)
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

// scanStatesGradGo recomputes the chunk's states from h, adding c*h to y as the forward pass does,
// and then goes back in time. On entry dh is the gradient of this chunk's last state from the next
// chunk, with exp(delta*decay) already applied; on return it is what this chunk passes to the
// previous one. With w[t] = dh[t]*exp(delta[t]*decay)*h[t-1], it adds sum_n dh[t]*b[t,n] to s[t],
// sum_n w[t]*decay to ddelta[t] and sum_t w[t]*delta[t] to dDecay. It adds dh[t]*deltaU[t] and
// gy[t]*h[t], whose lanes add up to dB[t,n] and dC[t,n], to sums, which is [n][2][ScanChunk][lanes]
// here. (The assembly first folds the products of scanStatesAtOnce states into the lanes of one
// vector, to reduce loads and stores.)
func scanStatesGradGo(work, sums, dDecay, dh, h, decay []float32, width int, b []float32, bStride int, c []float32, cStride int, steps, n int, _ []uintptr) {
	delta, deltaU, y := scanRowGo(work, scanDelta), scanRowGo(work, scanDeltaU), scanRowGo(work, scanY)
	gy, s, ddelta := scanRowGo(work, scanGY), scanRowGo(work, scanS), scanRowGo(work, scanDDelta)
	rate, decayed := scanRowGo(work, scanHistory), scanRowGo(work, scanHistory+1)
	for j := range n {
		sumB, sumC := scanRowGo(sums, 2*j), scanRowGo(sums, 2*j+1)
		for i := range scanLanesGo {
			hj, a := h[j*width+i], decay[j*width+i]
			for t := range steps {
				p := t*scanLanesGo + i
				rate[p] = exp32(delta[p] * a)
				decayed[p] = rate[p] * hj
				hj = decayed[p] + deltaU[p]*b[t*bStride+j]
				y[p] += hj * c[t*cStride+j]
				sumC[p] += hj * gy[p]
			}
			carry, da := dh[j*width+i], dDecay[j*width+i]
			for t := steps - 1; t >= 0; t-- {
				p := t*scanLanesGo + i
				carry += gy[p] * c[t*cStride+j]
				w := carry * decayed[p]
				s[p] += carry * b[t*bStride+j]
				ddelta[p] += w * a
				sumB[p] += carry * deltaU[p]
				da += w * delta[p]
				carry *= rate[p]
			}
			dh[j*width+i], dDecay[j*width+i] = carry, da
		}
	}
}

// scanGateGradGo: dz = dy * y * silu'(z).
func scanGateGradGo(dz []float32, dzStride int, work, dy []float32, dyStride int, z []float32, zStride, steps int) {
	y := scanRowGo(work, scanY)
	for t := range steps {
		for i := range scanLanesGo {
			dz[t*dzStride+i] = dy[t*dyStride+i] * y[t*scanLanesGo+i] * siluSlope32(z[t*zStride+i])
		}
	}
}

// scanDeltaGradGo is the gradient of scanDeltaGo: du = skip*gy + delta*s, ddt = (ddelta + u*s) * sig,
// dBias += sum_t ddt, dSkip += sum_t gy*u.
func scanDeltaGradGo(du []float32, duStride int, ddt []float32, ddtStride int, dBias, dSkip, work, u []float32, uStride int, skip []float32, steps int) {
	delta, sig := scanRowGo(work, scanDelta), scanRowGo(work, scanSig)
	gy, s, ddelta := scanRowGo(work, scanGY), scanRowGo(work, scanS), scanRowGo(work, scanDDelta)
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

// scanAddLanesGo: dB[t,n] += the sum of the lanes of sums[n,0,t], dC[t,n] += that of sums[n,1,t].
func scanAddLanesGo(dB []float32, dBStride int, dC []float32, dCStride int, sums []float32, steps, n int) {
	for j := range n {
		sumB, sumC := scanRowGo(sums, 2*j), scanRowGo(sums, 2*j+1)
		for t := range steps {
			p := t * scanLanesGo
			dB[t*dBStride+j] += reduceLanes((*[portableLanes]float32)(sumB[p:]))
			dC[t*dCStride+j] += reduceLanes((*[portableLanes]float32)(sumC[p:]))
		}
	}
}
