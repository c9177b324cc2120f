package selective_scan

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

//go:embed selective_scan.cu
var source string

// tiling is how a pass cuts its work: what a thread, a block and the grid have.
type tiling struct {
	per, lanes       int // states of a channel a thread, and threads a channel
	tile, channels   int // channels a thread, and a block
	resident         int // blocks wanted on a multiprocessor
	slices           int // of the channels
	segments, length int // of the chunks, and how many one has
}

// newTiling cuts a row into so many segments that there are at most about `wanted`
// blocks, of which `threads` threads are wanted on a multiprocessor. It depends on the
// sizes alone, so that sums do too.
func newTiling(d graph.Dims, per, lanes, tile, channels, threads, wanted int) tiling {
	const shortest = 4 // chunks of a segment
	t := tiling{per: per, lanes: lanes, tile: tile, channels: channels}
	t.resident = max(threads/t.threads(), 1)
	t.slices = ceilDiv(d["C"], channels)
	chunks := ceilDiv(d["T"], simd.ScanChunk)
	t.length = max(ceilDiv(chunks, max(wanted/(t.slices*d["B"]), 1)), min(shortest, chunks))
	t.segments = ceilDiv(chunks, t.length)
	return t
}

// forwardTiling has 4 states of 2 channels a thread where it can, so that one wave of
// blocks holds the channels of a large batch. Segments cost each exp twice: only where
// there are few blocks are rows cut into them.
func forwardTiling(d graph.Dims) tiling {
	const tile, threads, wanted, few = 2, 512, 1056, 264 // blocks of 64 channels are few, of 32 wanted
	per, channels := 4, 64
	if d["N"] > 32 {
		per = 8
	}
	lanes := lanesFor(d["N"], per)
	if ceilDiv(d["C"], channels)*d["B"] < few {
		channels = max(32, 32*tile/lanes) // at least a warp
	}
	t := newTiling(d, per, lanes, tile, channels, threads, wanted)
	if t.slices*t.channels*d["B"] > 64*few {
		t.segments, t.length = 1, ceilDiv(d["T"], simd.ScanChunk)
	}
	return t
}

// backwardTiling keeps a block's shared memory below 99 KB, of up to 16 states three blocks'
// below 227 KB, and its registers below the 168 of 384 threads.
func backwardTiling(d graph.Dims) tiling {
	const wanted = 396
	switch n := d["N"]; {
	case n <= 16:
		const tile = 2
		return newTiling(d, 4, lanesFor(n, 4), tile, 64, 384, wanted)
	case n <= 32:
		return newTiling(d, 8, 4, 1, 32, 384, wanted)
	default:
		return newTiling(d, 8, 8, 1, 16, 384, wanted)
	}
}

// lanesFor is the power of 2 of threads that hold n states, per each.
func lanesFor(n, per int) int {
	lanes := 1
	for lanes*per < n {
		lanes *= 2
	}
	return lanes
}

func (t tiling) threads() int { return t.channels / t.tile * t.lanes }

// group is the tokens whose states the backward pass has in registers at once.
func (t tiling) group() int { return 16 / t.per }

// sharedBytes is what a block of the backward pass keeps: four numbers of each token and
// channel, the states before each group, Bm, Cm, the bias and the skip.
func (t tiling) sharedBytes() int {
	const chunk = simd.ScanChunk
	return 4 * (4*chunk*t.channels + chunk/t.group()*t.threads()*t.tile*t.per + 2*chunk*t.lanes*t.per + 2*t.channels)
}

// launch is a kernel over all slices and rows, and so many segments.
func (t tiling) launch(kernel string, macros map[string]string, d graph.Dims, segments int, args ...any) graph.Launch {
	return graph.Launch{Kernel: kernel, Defines: macros,
		Grid: [3]int{t.slices, segments, d["B"]}, Block: [3]int{t.threads(), 1, 1}, Args: args}
}

// chain is the kernel that makes of the segments' ends what each begins with.
func (t tiling) chain(macros map[string]string, d graph.Dims, ends, decays, first uint64, backwards int32) graph.Launch {
	const threads = 128
	size := d["N"] * d["C"]
	return graph.Launch{Kernel: "selective_scan_chain", Defines: macros,
		Grid: [3]int{ceilDiv(size, threads), d["B"], 1}, Block: [3]int{threads, 1, 1},
		Args: []any{ends, decays, first, int32(t.segments), int32(size), backwards}}
}

// edgeBytes is the size of the states at the segments' ends; none where there is one.
func (t tiling) edgeBytes(d graph.Dims) int {
	if t.segments == 1 {
		return 0
	}
	return 4 * d["B"] * t.segments * d["N"] * d["C"]
}

// macros are the source's, given the operands [B T C], those [B T N] and all types.
func (t tiling) macros(d graph.Dims, gated bool, types map[string]graph.DeviceBuffer, octets, states []graph.DeviceBuffer) map[string]string {
	m := map[string]string{"N": strconv.Itoa(d["N"]), "CHUNK": strconv.Itoa(simd.ScanChunk), "PER": strconv.Itoa(t.per),
		"LANES": strconv.Itoa(t.lanes), "TILE": strconv.Itoa(t.tile), "CHANNELS": strconv.Itoa(t.channels), "RESIDENT": strconv.Itoa(t.resident)}
	for name, b := range types {
		m[name] = b.DType.CType()
		if b.DType == graph.BFloat16 {
			m["FAST"] = "1"
		}
	}
	if gated {
		m["GATED"] = "1"
	}
	if vectors(8, octets) {
		m["WIDE"] = "1"
	}
	if vectors(4, states) {
		m["WIDE_BC"] = "1"
	}
	return m
}

// vectors reports whether the rows of all buffers can be moved n elements, or 16 bytes,
// at a time.
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

func cudaForward(gated, carry bool) *graph.CUDA {
	return &graph.CUDA{
		Source:    source,
		Workspace: func(d graph.Dims) int { return 2 * forwardTiling(d).edgeBytes(d) },
		Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			d, in, y := c.Dims, c.In, c.Out[0]
			u, dt, bm, cm, z := in[0], in[1], in[4], in[5], in[0]
			octets := []graph.DeviceBuffer{u, dt, y}
			if gated {
				z = in[7]
				octets = append(octets, z)
			}
			// state is where the text's states come from, through starts, and go to.
			var saved, state uint64
			if carry {
				state = in[len(in)-1].Address
			} else {
				saved = c.Out[1].Address
			}
			t := forwardTiling(d)
			macros := t.macros(d, gated, map[string]graph.DeviceBuffer{"U_T": u, "DT_T": dt, "B_T": bm, "C_T": cm, "Z_T": z, "Y_T": y},
				octets, []graph.DeviceBuffer{bm, cm})
			var launches []graph.Launch
			starts := state
			if t.segments > 1 {
				starts = c.Workspace
				decays := starts + uint64(t.edgeBytes(d))
				launches = append(launches,
					t.launch("selective_scan_ends", macros, d, t.segments-1,
						u.Address, dt.Address, in[2].Address, in[3].Address, bm.Address, in[6].Address, starts, decays, int32(t.length),
						int32(d["T"]), int32(d["C"]), int32(u.Stride), int32(dt.Stride), int32(bm.Stride)),
					t.chain(macros, d, starts, decays, state, 0))
			}
			return append(launches, t.launch("selective_scan", macros, d, t.segments,
				u.Address, dt.Address, in[2].Address, in[3].Address, bm.Address, cm.Address, in[6].Address, z.Address, starts, saved, state,
				y.Address, int32(t.length), int32(d["T"]), int32(d["C"]), int32(u.Stride), int32(dt.Stride), int32(bm.Stride),
				int32(cm.Stride), int32(z.Stride), int32(y.Stride))), nil
		},
	}
}

// slicesBytes is the slices' parts of dBm and dCm, and rowsBytes the rows' and segments'
// parts of the parameters' gradients.
func (t tiling) slicesBytes(d graph.Dims) int { return 4 * t.slices * d["B"] * d["T"] * 2 * d["N"] }

func (t tiling) rowsBytes(d graph.Dims) int { return 4 * d["B"] * t.segments * (d["N"] + 2) * d["C"] }

func cudaBackward(gated bool) *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Workspace: func(d graph.Dims) int {
			t := backwardTiling(d)
			return t.slicesBytes(d) + t.rowsBytes(d) + 2*t.edgeBytes(d)
		},
		Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			d, in, out := c.Dims, c.In, c.Out
			u, dt, bm, cm, z, dz := in[0], in[1], in[4], in[5], in[0], out[0]
			saved, dy := in[len(in)-2], in[len(in)-1]
			du, ddt, dbm, dcm := out[0], out[1], out[4], out[5]
			octets := []graph.DeviceBuffer{u, dt, dy, du, ddt}
			if gated {
				z, dz = in[7], out[7]
				octets = append(octets, z, dz)
			}
			t := backwardTiling(d)
			macros := t.macros(d, gated, map[string]graph.DeviceBuffer{"U_T": u, "DT_T": dt, "B_T": bm, "C_T": cm, "Z_T": z,
				"DY_T": dy, "DU_T": du, "DDT_T": ddt, "DB_T": dbm, "DC_T": dcm, "DZ_T": dz}, octets, []graph.DeviceBuffer{bm, cm})

			slices := c.Workspace
			rows := slices + uint64(t.slicesBytes(d))
			var launches []graph.Launch
			var lasts uint64
			if t.segments > 1 {
				lasts = rows + uint64(t.rowsBytes(d))
				decays := lasts + uint64(t.edgeBytes(d))
				launches = append(launches,
					t.launch("selective_scan_backward_ends", macros, d, t.segments-1,
						dt.Address, in[2].Address, in[3].Address, cm.Address, z.Address, dy.Address, lasts, decays, int32(t.length),
						int32(d["T"]), int32(d["C"]), int32(dt.Stride), int32(cm.Stride), int32(z.Stride), int32(dy.Stride)),
					t.chain(macros, d, lasts, decays, 0, 1))
			}
			main := t.launch("selective_scan_backward", macros, d, t.segments,
				u.Address, dt.Address, in[2].Address, in[3].Address, bm.Address, cm.Address, in[6].Address, z.Address, saved.Address,
				dy.Address, lasts, du.Address, ddt.Address, dz.Address, slices, rows, int32(t.length), int32(d["T"]), int32(d["C"]),
				int32(u.Stride), int32(dt.Stride), int32(bm.Stride), int32(cm.Stride), int32(z.Stride), int32(dy.Stride),
				int32(du.Stride), int32(ddt.Stride), int32(dz.Stride))
			main.Shared = t.sharedBytes()
			const threads = 256
			tokens, width := d["B"]*d["T"], 1
			if d["N"]%4 == 0 {
				width = 4
			}
			return append(launches, main, graph.Launch{
				Kernel: "selective_scan_sum_slices", Defines: macros,
				Grid: [3]int{ceilDiv(tokens*2*d["N"]/width, threads), 1, 1}, Block: [3]int{threads, 1, 1},
				Args: []any{slices, dbm.Address, dcm.Address, int32(t.slices), int32(tokens), int32(dbm.Stride), int32(dcm.Stride)},
			}, graph.Launch{
				Kernel: "selective_scan_sum_rows", Defines: macros,
				Grid: [3]int{ceilDiv((d["N"]+2)*d["C"], threads), 1, 1}, Block: [3]int{threads, 1, 1},
				Args: []any{rows, out[3].Address, out[2].Address, out[6].Address, int32(d["B"] * t.segments), int32(d["C"])},
			}), nil
		},
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
