package simd

import "unsafe"

var gemmAVX2 = gemmKernels{
	lanes:      8,
	rows:       6,
	cols:       16,
	wideRows:   2,
	wideCols:   32,
	kBlock:     384,
	perElement: 1,
	widen:      widenAVX2,
	tile:       gemmTileAVX2,
	dot:        gemmDotAVX2,
	dotRows:    2,
	copyRows:   gemmCopyRowsAVX2,
	transpose:  gemmTransposeAVX2,
}

var gemmAVX512 = gemmKernels{
	lanes:      16,
	rows:       14,
	cols:       32,
	wideRows:   3,
	wideCols:   64,
	kBlock:     384,
	perElement: 1,
	widen:      widenAVX512,
	tile:       gemmTileAVX512,
	dot:        gemmDotAVX512,
	dotRows:    4,
	copyRows:   gemmCopyRowsAVX2,
	transpose:  gemmTransposeAVX2,
}

func kernelsOf(l Level) *gemmKernels {
	switch l {
	case AVX512:
		return &gemmAVX512
	case AVX2:
		return &gemmAVX2
	}
	return &gemmPortable
}

// gemmBF16 has AVX512-BF16's products of pairs of bfloat16 numbers.
var gemmBF16 = gemmKernels{
	lanes:      16,
	rows:       14,
	cols:       32,
	kBlock:     768,
	perElement: 2,
	narrow:     gemmPairs,
	round:      roundAVX512,
	widen:      widenAVX512,
	tile:       gemmTileBF16,
	dot:        gemmDotAVX512,
	dotRows:    4,
	copyRows:   gemmCopyRowsAVX2,
	transpose:  gemmTransposeAVX2,
}

var (
	gemmRoundedAVX2   = gemmAVX2.rounded(roundAVX2)
	gemmRoundedAVX512 = gemmAVX512.rounded(roundAVX512)
)

// roundingKernelsOf is kernelsOf for products that round their inputs to bfloat16.
func roundingKernelsOf(l Level) *gemmKernels {
	switch {
	case l == AVX512 && activeBF16.Load():
		return &gemmBF16
	case l == AVX512:
		return gemmRoundedAVX512
	case l == AVX2:
		return gemmRoundedAVX2
	}
	return gemmRoundedPortable
}

// gemmTile is gemmKernels.tile in assembly, for one number of rows and of vectors in a row: last is the
// number of columns in the last vector. Strides are in elements.
type gemmTile = func(k int, a *float32, aRow, aK int, b *float32, bK int, c *float32, cRow, last int, accumulate bool)

// gemmTilesAVX2 and gemmTilesAVX512 are indexed by vectors in a row, and then by rows - 1.
var gemmTilesAVX2 = [5][]gemmTile{
	1: {gemmTile1x8AVX2, gemmTile2x8AVX2, gemmTile3x8AVX2, gemmTile4x8AVX2, gemmTile5x8AVX2, gemmTile6x8AVX2},
	2: {gemmTile1x16AVX2, gemmTile2x16AVX2, gemmTile3x16AVX2, gemmTile4x16AVX2, gemmTile5x16AVX2, gemmTile6x16AVX2},
	4: {gemmTile1x32AVX2, gemmTile2x32AVX2},
}

var gemmTilesAVX512 = [5][]gemmTile{
	1: {gemmTile1x16AVX512, gemmTile2x16AVX512, gemmTile3x16AVX512, gemmTile4x16AVX512, gemmTile5x16AVX512, gemmTile6x16AVX512, gemmTile7x16AVX512, gemmTile8x16AVX512, gemmTile9x16AVX512, gemmTile10x16AVX512, gemmTile11x16AVX512, gemmTile12x16AVX512, gemmTile13x16AVX512, gemmTile14x16AVX512},
	2: {gemmTile1x32AVX512, gemmTile2x32AVX512, gemmTile3x32AVX512, gemmTile4x32AVX512, gemmTile5x32AVX512, gemmTile6x32AVX512, gemmTile7x32AVX512, gemmTile8x32AVX512, gemmTile9x32AVX512, gemmTile10x32AVX512, gemmTile11x32AVX512, gemmTile12x32AVX512, gemmTile13x32AVX512, gemmTile14x32AVX512},
	4: {gemmTile1x64AVX512, gemmTile2x64AVX512, gemmTile3x64AVX512},
}

func gemmTileAVX2(k int, a []float32, aRow, aK int, b []float32, bK int, c []float32, cRow, rows, cols int, accumulate bool) {
	vecs := ceilDiv(cols, 8)
	gemmTilesAVX2[vecs][rows-1](k, unsafe.SliceData(a), aRow, aK, unsafe.SliceData(b), bK,
		unsafe.SliceData(c), cRow, cols-8*(vecs-1), accumulate)
}

func gemmTileAVX512(k int, a []float32, aRow, aK int, b []float32, bK int, c []float32, cRow, rows, cols int, accumulate bool) {
	vecs := ceilDiv(cols, 16)
	gemmTilesAVX512[vecs][rows-1](k, unsafe.SliceData(a), aRow, aK, unsafe.SliceData(b), bK,
		unsafe.SliceData(c), cRow, cols-16*(vecs-1), accumulate)
}

// gemmDot is gemmKernels.dot in assembly, for one number of rows and of columns.
type gemmDot = func(k int, a *float32, aRow int, b *float32, bRow int, c *float32, cRow int, accumulate bool)

// gemmDotsAVX2 and gemmDotsAVX512 are indexed by rows - 1, and hold the kernels of 1 and of dotCols columns.
var gemmDotsAVX2 = [][2]gemmDot{
	{gemmDot1x1AVX2, gemmDot1x4AVX2},
	{gemmDot2x1AVX2, gemmDot2x4AVX2},
}

var gemmDotsAVX512 = [][2]gemmDot{
	{gemmDot1x1AVX512, gemmDot1x4AVX512},
	{gemmDot2x1AVX512, gemmDot2x4AVX512},
	{gemmDot3x1AVX512, gemmDot3x4AVX512},
	{gemmDot4x1AVX512, gemmDot4x4AVX512},
}

func gemmDotAVX2(k int, a []float32, aRow int, b []float32, bRow int, c []float32, cRow, rows, cols int, accumulate bool) {
	gemmDotsAVX2[rows-1][cols/dotCols](k, unsafe.SliceData(a), aRow, unsafe.SliceData(b), bRow, unsafe.SliceData(c), cRow, accumulate)
}

func gemmDotAVX512(k int, a []float32, aRow int, b []float32, bRow int, c []float32, cRow, rows, cols int, accumulate bool) {
	gemmDotsAVX512[rows-1][cols/dotCols](k, unsafe.SliceData(a), aRow, unsafe.SliceData(b), bRow, unsafe.SliceData(c), cRow, accumulate)
}

func gemmCopyRowsAVX2(dst []float32, dstRow int, src []float32, srcRow, rows, cols int) {
	d, s := unsafe.SliceData(dst), unsafe.SliceData(src)
	switch {
	case cols <= 4 || cols > 32:
		gemmCopyRowsPortable(dst, dstRow, src, srcRow, rows, cols)
	case cols < 8:
		gemmCopy2x4AVX2(d, dstRow, s, srcRow, rows, cols)
	case cols == 8:
		gemmCopy1x8AVX2(d, dstRow, s, srcRow, rows, cols)
	case cols <= 16:
		gemmCopy2x8AVX2(d, dstRow, s, srcRow, rows, cols)
	case cols <= 24:
		gemmCopy3x8AVX2(d, dstRow, s, srcRow, rows, cols)
	default:
		gemmCopy4x8AVX2(d, dstRow, s, srcRow, rows, cols)
	}
}

func gemmTransposeAVX2(dst []float32, dstRow int, src []float32, srcRow, rows, cols int) {
	whole := cols &^ 7
	if rows < 4 || whole == 0 {
		gemmTransposePortable(dst, dstRow, src, srcRow, rows, cols)
		return
	}
	kernel, height := gemmTranspose8AVX2, 8
	if rows < 8 {
		kernel, height = gemmTranspose4AVX2, 4
	}
	for r := 0; r < rows; r += height {
		r := min(r, rows-height) // the last rows may be written twice
		kernel(&dst[r], dstRow, &src[r*srcRow], srcRow, whole/8)
	}
	if whole < cols {
		gemmTransposePortable(dst[whole*dstRow:], dstRow, src[whole:], srcRow, rows, cols-whole)
	}
}
