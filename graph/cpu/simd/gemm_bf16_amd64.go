package simd

import "unsafe"

// gemmTilesBF16 is like gemmTilesAVX512. Steps are pairs of steps over K.
var gemmTilesBF16 = [3][]gemmTile{
	1: {gemmTile1x16BF16, gemmTile2x16BF16, gemmTile3x16BF16, gemmTile4x16BF16, gemmTile5x16BF16, gemmTile6x16BF16, gemmTile7x16BF16, gemmTile8x16BF16, gemmTile9x16BF16, gemmTile10x16BF16, gemmTile11x16BF16, gemmTile12x16BF16, gemmTile13x16BF16, gemmTile14x16BF16},
	2: {gemmTile1x32BF16, gemmTile2x32BF16, gemmTile3x32BF16, gemmTile4x32BF16, gemmTile5x32BF16, gemmTile6x32BF16, gemmTile7x32BF16, gemmTile8x32BF16, gemmTile9x32BF16, gemmTile10x32BF16, gemmTile11x32BF16, gemmTile12x32BF16, gemmTile13x32BF16, gemmTile14x32BF16},
}

func gemmTileBF16(k int, a []float32, aRow, aK int, b []float32, bK int, c []float32, cRow, rows, cols int, accumulate bool) {
	vecs := ceilDiv(cols, 16)
	gemmTilesBF16[vecs][rows-1](k, unsafe.SliceData(a), aRow, aK, unsafe.SliceData(b), bK,
		unsafe.SliceData(c), cRow, cols-16*(vecs-1), accumulate)
}

// gemmPairs is gemmKernels.narrow to pairs of bfloat16s.
func gemmPairs(dst, src []float32, width, steps int) {
	gemmPairsBF16(&dst[0], &src[0], width, ceilDiv(steps, 2))
}

func roundAVX512(dst, src []float32) {
	whole := len(src) &^ 15
	if whole > 0 {
		gemmRoundAVX512(&dst[0], &src[0], whole)
	}
	roundPortable(dst[whole:], src[whole:])
}

func roundAVX2(dst, src []float32) {
	whole := len(src) &^ 7
	if whole > 0 {
		gemmRoundAVX2(&dst[0], &src[0], whole)
	}
	roundPortable(dst[whole:], src[whole:])
}

func widenAVX512(dst []float32, src []uint16) {
	whole := len(dst) &^ 15
	if whole > 0 {
		gemmWidenAVX512(&dst[0], &src[0], whole)
	}
	widenPortable(dst[whole:], src[whole:])
}

func widenAVX2(dst []float32, src []uint16) {
	whole := len(dst) &^ 7
	if whole > 0 {
		gemmWidenAVX2(&dst[0], &src[0], whole)
	}
	widenPortable(dst[whole:], src[whole:])
}
