package selective_scan

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// tiling is how a pass divides its work among threads, blocks and the grid.
type tiling struct {
	per, lanes       int // states of a channel per thread, and threads per channel
	tile, channels   int // channels per thread, and per block
	resident         int // blocks wanted per SM
	slices           int // number of slices of the channels
	segments, length int // segments of the chunks, and chunks per segment
	pieces           int // pieces per segment while computing its end states
}

// mostPieces bounds the pieces of a segment. Computing the end states takes little work per token,
// and this many pieces keep a GPU busy.
const mostPieces = 4

// over returns tiling t for the sizes d, with `threads` threads wanted per SM and each row in one
// segment.
func (t tiling) over(d graph.Dims, threads int) tiling {
	t.resident = max(threads/t.threads(), 1)
	t.slices = ceilDiv(d["C"], t.channels)
	t.segments, t.length, t.pieces = 1, ceilDiv(d["T"], simd.ScanChunk), 1
	return t
}

// cut splits a row into segments, as many as keep the grid at no more than about `wanted` blocks.
// It depends only on the sizes, so the order of sums does too.
func (t tiling) cut(d graph.Dims, wanted int) tiling {
	const shortest = 4 // chunks of a segment
	chunks := ceilDiv(d["T"], simd.ScanChunk)
	t.length = max(ceilDiv(chunks, max(wanted/(t.slices*d["B"]), 1)), min(shortest, chunks))
	t.segments = ceilDiv(chunks, t.length)
	if t.segments > 1 {
		t.pieces = min(mostPieces, t.length)
	}
	return t
}

// fullest is the largest number of channels (over all rows) that any of an H100's SMs gets.
func (t tiling) fullest(d graph.Dims) int {
	const processors = 132
	return ceilDiv(t.slices*d["B"], processors) * t.channels
}

// forwardTiling gives each thread 4 states of 2 channels where possible, so that one wave of blocks
// covers the channels of a large batch. Segments compute each exp twice. Where there are few
// channels, a thread therefore takes only one, and rows are cut only where that still makes too few
// blocks to fill a GPU. One channel per thread takes 10% more time; it is worth that where smaller
// blocks balance the SMs better.
func forwardTiling(d graph.Dims) tiling {
	const threads, more, wanted, few = 512, 768, 1056, 256 // fewer than 256 blocks of 128 threads are too few; of blocks of one or two warps, 1056 are wanted
	per := 4
	if d["N"] > 32 {
		per = 8
	}
	lanes := lanesFor(d["N"], per)
	two := tiling{per: per, lanes: lanes, tile: 2, channels: 64}.over(d, threads)
	one := tiling{per: per, lanes: lanes, tile: 1, channels: 32}
	small := one.threads() == 128
	if two.slices*d["B"] >= few {
		if one := one.over(d, more); small && 8*one.fullest(d) < 7*two.fullest(d) {
			return one
		}
		return two
	}
	if one := one.over(d, threads); small && one.slices*d["B"] >= few {
		return one
	}
	t := tiling{per: per, lanes: lanes, tile: 2, channels: max(32, 64/lanes)} // at least a warp
	return t.over(d, threads).cut(d, wanted)
}

// mostStates is the number of states per channel that the backward pass has registers for.
const mostStates = 64

// backwardTiling keeps a block's shared memory below 99 KB, three blocks' shared memory below 227
// KB (up to 16 states), and its registers per thread below the 168 that 384 threads per SM can
// have.
func backwardTiling(d graph.Dims) tiling {
	t, threads := tiling{per: 4, lanes: 4, tile: 2, channels: 64}, 384
	switch n := d["N"]; {
	case n > 32:
		t.per, t.tile, t.channels, threads = 16, 1, 16, 256
	case n > 16:
		t.per, t.tile, t.channels = 8, 1, 32
	}
	return t.over(d, threads).cut(d, 396)
}

// lanesFor returns the number of threads, a power of 2, that hold n states with `per` states each.
func lanesFor(n, per int) int {
	lanes := 1
	for lanes*per < n {
		lanes *= 2
	}
	return lanes
}

func (t tiling) threads() int { return t.channels / t.tile * t.lanes }

// residentEnds is the number of blocks per SM wanted for a kernel that computes segment ends: more
// than for the other kernels, where registers suffice.
func (t tiling) residentEnds() int {
	const threads = 768
	if t.per > 4 {
		return t.resident
	}
	return max(threads/t.threads(), t.resident)
}

// group is the number of tokens whose states the backward pass holds in registers at once.
func (t tiling) group() int {
	if t.per > 4 {
		return 2
	}
	return 4
}

// sharedBytes is the shared memory of a backward block: four numbers per token and channel, the
// states before each group, Bm, Cm, the bias and the skip.
func (t tiling) sharedBytes() int {
	const chunk = simd.ScanChunk
	row := t.channels + t.channels/8 + 2
	return 4 * (4*chunk*row + chunk/t.group()*t.threads()*t.tile*t.per + 2*chunk*t.lanes*t.per + 16 + 2*t.channels)
}

// mixedKernel reports whether the backward pass uses backward_mixed.cu, which handles the shapes
// that models are trained with.
func mixedKernel(d graph.Dims, macros map[string]string) bool {
	return d["N"] == 16 && d["C"]%64 == 0 && macros["WIDE"] != "" && macros["WIDE_BC"] != "" &&
		macros["B_T"] == graph.BFloat16.CType() && macros["C_T"] == graph.BFloat16.CType()
}

// mixedSharedBytes is the shared memory of a block of that kernel: bias and skip, Bm and Cm as MMA
// operands, the states before each group, eight numbers per token and pair of channels, and four
// sums per thread. Three blocks fill the 228 KB of an SM.
const mixedSharedBytes = 4 * (2*64 + simd.ScanChunk*(2*2*9+2*2*4) + simd.ScanChunk/4*128*8 + 8*simd.ScanChunk*(64/2+2) + 4*128)

// launch launches a kernel over all rows, slices and `segments` segments.
func (t tiling) launch(kernel string, macros map[string]string, d graph.Dims, segments int, args ...any) graph.Launch {
	return graph.Launch{Kernel: kernel, Defines: macros,
		Grid: [3]int{d["B"], t.slices, segments}, Block: [3]int{t.threads(), 1, 1}, Args: args}
}

// ends launches the kernel that computes the end states of each piece, for all segments but one.
func (t tiling) ends(kernel string, macros map[string]string, d graph.Dims, args ...any) graph.Launch {
	return t.launch(kernel, macros, d, (t.segments-1)*t.pieces, args...)
}

// chain launches the kernel that turns the pieces' end states into the states at the start of each
// piece.
func (t tiling) chain(macros map[string]string, d graph.Dims, ends, decays, first uint64, backwards int32) graph.Launch {
	const threads = 128
	size := d["N"] * d["C"]
	return graph.Launch{Kernel: "selective_scan_chain", Defines: macros,
		Grid: [3]int{ceilDiv(size, threads), d["B"], 1}, Block: [3]int{threads, 1, 1},
		Args: []any{ends, decays, first, int32(t.segments * t.pieces), int32((t.segments-1)*t.pieces + 1), int32(size), backwards}}
}

// edgeBytes is the size of the states at the ends of the pieces: 0 with one segment.
func (t tiling) edgeBytes(d graph.Dims) int {
	if t.segments == 1 {
		return 0
	}
	return 4 * d["B"] * t.segments * t.pieces * d["N"] * d["C"]
}

// macros returns the macros of the source, given the types of all operands, the operands [B T C]
// and those [B T N], and the files to enable.
func (t tiling) macros(d graph.Dims, f form, types map[string]graph.DeviceBuffer, octets, states []graph.DeviceBuffer, files ...string) map[string]string {
	m := map[string]string{"N": strconv.Itoa(d["N"]), "CHUNK": strconv.Itoa(simd.ScanChunk), "PER": strconv.Itoa(t.per),
		"LANES": strconv.Itoa(t.lanes), "TILE": strconv.Itoa(t.tile), "CHANNELS": strconv.Itoa(t.channels), "RESIDENT": strconv.Itoa(t.resident),
		"PIECES": strconv.Itoa(t.pieces), "RESIDENT_ENDS": strconv.Itoa(t.residentEnds())}
	for name, b := range types {
		m[name] = b.DType.CType()
		if b.DType == graph.BFloat16 {
			m["FAST"] = "1"
		}
	}
	for _, name := range files {
		m[macro(name)] = "1"
	}
	for name, set := range map[string]bool{"GATED": f.gated, "BY_DOCUMENT": f.byDocument, "WIDE": vectors(8, octets), "WIDE_BC": vectors(4, states),
		"WHOLE": d["T"]%simd.ScanChunk == 0 && d["C"]%t.channels == 0} {
		if set {
			m[name] = "1"
		}
	}
	return m
}

// vectors reports whether the rows of all buffers can be accessed n elements, or 16 bytes, at a
// time.
func vectors(n int, buffers []graph.DeviceBuffer) bool {
	for _, b := range buffers {
		size := b.DType.Size()
		access := min(n*size, 16)
		if b.Cols%n != 0 || b.Address%uint64(access) != 0 || b.Stride*size%access != 0 {
			return false
		}
	}
	return true
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
