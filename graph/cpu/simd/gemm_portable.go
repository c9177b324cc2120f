package simd

var gemmPortable = gemmKernels{
	lanes:      1,
	rows:       4,
	cols:       4,
	kBlock:     256,
	perElement: 1,
	widen:      widenPortable,
	tile:       gemmTilePortable,
	dot:        gemmDotPortable,
	dotRows:    1,
	copyRows:   gemmCopyRowsPortable,
	transpose:  gemmTransposePortable,
}

func gemmTilePortable(k int, a []float32, aRow, aK int, b []float32, bK int, c []float32, cRow, rows, cols int, accumulate bool) {
	i := 0
	if cols == 4 {
		for ; i+2 <= rows; i += 2 {
			gemmTile2x4(k, a[i*aRow:], aRow, aK, b, bK, c[i*cRow:], cRow, accumulate)
		}
		if i < rows {
			gemmTile1x4(k, a[i*aRow:], aK, b, bK, c[i*cRow:], accumulate)
		}
		return
	}
	for ; i < rows; i++ {
		for j := range cols {
			var s float32
			for p := range k {
				s += a[i*aRow+p*aK] * b[p*bK+j]
			}
			if accumulate {
				s += c[i*cRow+j]
			}
			c[i*cRow+j] = s
		}
	}
}

func gemmTile1x4(k int, a []float32, aK int, b []float32, bK int, c []float32, accumulate bool) {
	var s0, s1, s2, s3 float32
	for p := range k {
		row := b[p*bK:][:4:4]
		x := a[p*aK]
		s0 += x * row[0]
		s1 += x * row[1]
		s2 += x * row[2]
		s3 += x * row[3]
	}
	c = c[:4:4]
	if accumulate {
		s0, s1, s2, s3 = s0+c[0], s1+c[1], s2+c[2], s3+c[3]
	}
	c[0], c[1], c[2], c[3] = s0, s1, s2, s3
}

// gemmTile2x4 keeps 8 sums in registers; together with the operands they fit in amd64's 16.
func gemmTile2x4(k int, a []float32, aRow, aK int, b []float32, bK int, c []float32, cRow int, accumulate bool) {
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	for p := range k {
		row := b[p*bK:][:4:4]
		x, y := a[p*aK], a[aRow+p*aK]
		s00 += x * row[0]
		s01 += x * row[1]
		s02 += x * row[2]
		s03 += x * row[3]
		s10 += y * row[0]
		s11 += y * row[1]
		s12 += y * row[2]
		s13 += y * row[3]
	}
	c0, c1 := c[:4:4], c[cRow:][:4:4]
	if accumulate {
		s00, s01, s02, s03 = s00+c0[0], s01+c0[1], s02+c0[2], s03+c0[3]
		s10, s11, s12, s13 = s10+c1[0], s11+c1[1], s12+c1[2], s13+c1[3]
	}
	c0[0], c0[1], c0[2], c0[3] = s00, s01, s02, s03
	c1[0], c1[1], c1[2], c1[3] = s10, s11, s12, s13
}

func gemmTransposePortable(dst []float32, dstRow int, src []float32, srcRow, rows, cols int) {
	for r := range rows {
		row := src[r*srcRow:][:cols]
		for c, x := range row {
			dst[c*dstRow+r] = x
		}
	}
}

func gemmCopyRowsPortable(dst []float32, dstRow int, src []float32, srcRow, rows, cols int) {
	for r := range rows {
		copy(dst[r*dstRow:][:cols], src[r*srcRow:])
	}
}

func gemmDotPortable(k int, a []float32, aRow int, b []float32, bRow int, c []float32, cRow, rows, cols int, accumulate bool) {
	for i := range rows {
		x := a[i*aRow:][:k]
		for j := range cols {
			y := b[j*bRow:][:k]
			var s0, s1, s2, s3 float32
			p := 0
			for ; p+4 <= k; p += 4 {
				x, y := x[p:p+4:p+4], y[p:p+4:p+4]
				s0 += x[0] * y[0]
				s1 += x[1] * y[1]
				s2 += x[2] * y[2]
				s3 += x[3] * y[3]
			}
			for ; p < k; p++ {
				s0 += x[p] * y[p]
			}
			s := (s0 + s1) + (s2 + s3)
			if accumulate {
				s += c[i*cRow+j]
			}
			c[i*cRow+j] = s
		}
	}
}
