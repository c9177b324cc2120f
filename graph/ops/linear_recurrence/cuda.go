package linear_recurrence

import (
	"embed"
	"math"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed *.cu
var files embed.FS

var source = func() string {
	var s strings.Builder
	s.WriteString(graph.CUDAFile(files, "chunk"))
	s.WriteString("#ifdef TOKEN\n" + graph.CUDAFile(files, "token") + "#else\n")
	for _, name := range []string{"within", "products", "states", "gradients", "inputs"} {
		s.WriteString(graph.CUDAFile(files, name))
	}
	s.WriteString("#endif\n")
	return s.String()
}()

const (
	// chunksAtOnce bounds the workspace: about this many chunks are processed at once, enough to
	// fill a GPU.
	chunksAtOnce = 512
	// tile is the number of lines and columns of a product that a thread block computes.
	tile = 64
	// factorBytes is the shared memory of linear_recurrence_within.
	factorBytes = 8 * (chunkTokens*(32+4) + chunkTokens) * 4
)

// device lays out the workspace of one call on a GPU: the arrays of the chunks that are processed
// at once.
type device struct {
	shape
	base, size uint64
}

func deviceOf(d graph.Dims, workspace uint64) *device {
	return &device{shape: shapeOf(d), base: workspace}
}

// atOnce is the number of sequences processed at once.
func (w *device) atOnce() int { return min(max(chunksAtOnce/w.chunks(), 1), w.sequences()) }

// next is the address of an array with this many float32 numbers per chunk.
func (w *device) next(floats int) uint64 {
	at := w.base + w.size
	w.size += (uint64(4*w.atOnce()*w.chunks()*floats) + 63) / 64 * 64
	return at
}

// chunkArrays are a chunk's scores, reads, writes and total, and the state before it.
type chunkArrays struct{ scores, reads, writes, total, states uint64 }

func (w *device) forwardArrays() chunkArrays {
	return chunkArrays{w.next(chunkTokens * chunkTokens), w.next(chunkTokens * w.keys), w.next(chunkTokens * w.keys),
		w.next(w.keys), w.next(w.keys * w.values)}
}

// gradientArrays are the gradients of a chunk's arrays: scores, reads, writes, the logarithm of
// total, and the state after it.
func (w *device) gradientArrays() chunkArrays {
	return chunkArrays{w.next(chunkTokens * chunkTokens), w.next(chunkTokens * w.keys), w.next(chunkTokens * w.keys),
		w.next(w.keys), w.next(w.keys * w.values)}
}

// batch is some of the sequences, which are processed at once.
type batch struct {
	*device
	macros       map[string]string
	start        uint64 // where each token's document begins; 0: rows are whole texts
	first, count int
}

// batches calls add for the sequences, as many at a time as fit in memory.
func (w *device) batches(macros map[string]string, start uint64, add func(batch)) {
	if start != 0 {
		macros["BY_DOCUMENT"] = "1"
	}
	for first := 0; first < w.sequences(); first += w.atOnce() {
		add(batch{w, macros, start, first, min(w.atOnce(), w.sequences()-first)})
	}
}

// launch is a kernel with y blocks for each chunk. The sizes that all kernels take come after args.
func (b batch) launch(kernel string, y int, args ...any) graph.Launch {
	return graph.Launch{Kernel: kernel, Defines: b.macros, Grid: [3]int{b.count * b.chunks(), y, 1}, Block: [3]int{256, 1, 1},
		Args: append(args, int32(b.first), int32(b.tokens), int32(b.heads))}
}

// tiles is a kernel with a block for each tile of a matrix [lines columns] of a chunk.
func (b batch) tiles(kernel string, lines, columns int, args ...any) graph.Launch {
	l := b.launch(kernel, parts(lines, tile)*parts(columns, tile), args...)
	l.Args = append(l.Args, int32(b.keys), int32(b.values))
	return l
}

// chain is the kernel that computes the recurrence of the states over the chunks or, backwards, of
// their gradients.
func (b batch) chain(states, total, start uint64, backwards int32) graph.Launch {
	return graph.Launch{Kernel: "linear_recurrence_chain", Defines: b.macros,
		Grid: [3]int{parts(b.keys*b.values, 256), b.count, 1}, Block: [3]int{256, 1, 1},
		Args: []any{states, total, start, int32(b.first), int32(b.chunks()), int32(b.keys), int32(b.values), backwards}}
}

// states are the launches that compute all arrays of the chunks. start points to the initial states
// and receives the final ones; 0 for none.
func (b batch) states(in []graph.DeviceBuffer, g graph.DeviceBuffer, a chunkArrays, start uint64) []graph.Launch {
	q, k, v := in[0], in[1], in[2]
	within := b.launch("linear_recurrence_within", 1, q.Address, k.Address, g.Address, a.scores, a.reads, a.writes, a.total,
		uint64(q.Stride), uint64(k.Stride), uint64(g.Stride), b.start)
	within.Args = append(within.Args, int32(b.keys), b.scale())
	within.Shared = factorBytes
	return []graph.Launch{
		within,
		b.tiles("linear_recurrence_written", b.keys, b.values, a.writes, v.Address, a.states, uint64(v.Stride)),
		b.chain(a.states, a.total, start, 0),
	}
}

func (b batch) scale() float32 { return float32(1 / math.Sqrt(float64(b.keys))) }

// macros are the source's macros: the types of all operands, and the fixed decays.
func (f *form) macros(types map[string]graph.DeviceBuffer) map[string]string {
	m := map[string]string{"CHUNK": strconv.Itoa(chunkTokens)}
	for name, b := range types {
		m[name] = b.DType.CType()
		if b.DType == graph.BFloat16 {
			m["FAST"] = "1"
		}
	}
	if f.fixed() {
		var list []string
		for _, g := range f.logDecay {
			// C++ has no literal for an infinite decay; the exponential of this one is 0, too.
			list = append(list, strconv.FormatFloat(max(g, -1e30), 'e', 9, 32)+"f")
		}
		m["LOG_DECAYS"] = strings.Join(list, ",")
	}
	return m
}

// operands is the number of inputs of all calls: q, k, v and, if decays are not fixed, g.
func (f *form) operands() int {
	if f.fixed() {
		return 3
	}
	return 4
}

// gate is g of a call, an empty buffer if decays are fixed.
func (f *form) gate(in []graph.DeviceBuffer) graph.DeviceBuffer {
	if f.fixed() {
		return graph.DeviceBuffer{}
	}
	return in[3]
}

// variant is what a call of the op has in addition to the common inputs.
type variant uint8

const (
	whole      variant = iota // nothing: rows are whole texts
	carry                     // the state, as the last input
	byDocument                // where each token's document begins, as the last input
)

// start is the address of the documents' starts, or 0.
func (v variant) start(c *graph.CUDACall) uint64 {
	if v != byDocument {
		return 0
	}
	return c.In[len(c.In)-1].Address
}

func (f *form) cudaForward(form variant) *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Workspace: func(d graph.Dims) int {
			w := deviceOf(d, 0)
			w.forwardArrays()
			return int(w.size)
		},
		Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			v, o := c.In[2], c.Out[0]
			var state uint64
			if form == carry {
				state = c.In[len(c.In)-1].Address
				if l, ok := f.token(c, state); ok {
					return []graph.Launch{l}, nil
				}
			}
			w := deviceOf(c.Dims, c.Workspace)
			a := w.forwardArrays()
			var launches []graph.Launch
			w.batches(f.macros(map[string]graph.DeviceBuffer{"Q_T": c.In[0], "K_T": c.In[1], "V_T": v, "O_T": o}), form.start(c), func(b batch) {
				launches = append(launches, b.states(c.In, f.gate(c.In), a, state)...)
				launches = append(launches, b.tiles("linear_recurrence_output", chunkTokens, b.values,
					v.Address, a.scores, a.reads, a.states, o.Address, uint64(v.Stride), uint64(o.Stride)))
			})
			return launches, nil
		},
	}
}

// token returns the launch of token.cu, if that kernel can handle the call.
func (f *form) token(c *graph.CUDACall, state uint64) (graph.Launch, bool) {
	const threads, columns, vector, mostKeys = 256, 32, 4, 2048
	q, k, v, g, o, d := c.In[0], c.In[1], c.In[2], f.gate(c.In), c.Out[0], c.Dims
	if d["T"] > 1 || d["Dk"] > mostKeys {
		return graph.Launch{}, false
	}
	width := 1
	if d["Dv"]%vector == 0 {
		width = vector
	}
	macros := f.macros(map[string]graph.DeviceBuffer{"Q_T": q, "K_T": k, "V_T": v, "O_T": o})
	macros["TOKEN"], macros["WIDTH"] = "1", strconv.Itoa(width)
	return graph.Launch{
		Kernel:  "linear_recurrence_token",
		Defines: macros,
		Grid:    [3]int{parts(d["Dv"], columns*width), d["H"], d["B"]},
		Block:   [3]int{threads, 1, 1},
		Shared:  3 * 4 * d["Dk"],
		Early:   true,
		Args: []any{q.Address, k.Address, v.Address, g.Address, state, o.Address, int32(d["H"]), int32(d["Dk"]), int32(d["Dv"]),
			float32(1 / math.Sqrt(float64(d["Dk"]))), uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(g.Stride), uint64(o.Stride)},
	}, true
}

func (f *form) cudaBackward(form variant) *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Workspace: func(d graph.Dims) int {
			w := deviceOf(d, 0)
			w.forwardArrays()
			w.gradientArrays()
			return int(w.size)
		},
		Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			q, k, v, g, do := c.In[0], c.In[1], c.In[2], f.gate(c.In), c.In[f.operands()]
			dq, dk, dv := c.Out[0], c.Out[1], c.Out[2]
			types := map[string]graph.DeviceBuffer{"Q_T": q, "K_T": k, "V_T": v, "DO_T": do, "DQ_T": dq, "DK_T": dk, "DV_T": dv}
			dg := dq // not written if decays are fixed
			if !f.fixed() {
				dg = c.Out[3]
			}
			types["DG_T"] = dg
			w := deviceOf(c.Dims, c.Workspace)
			a := w.forwardArrays()
			d := w.gradientArrays()
			var launches []graph.Launch
			w.batches(f.macros(types), form.start(c), func(b batch) {
				launches = append(launches, b.states(c.In, g, a, 0)...)
				dscores := b.launch("linear_recurrence_dscores", 1, v.Address, do.Address, d.scores, uint64(v.Stride), uint64(do.Stride))
				dscores.Args = append(dscores.Args, int32(b.values))
				dkeys := b.tiles("linear_recurrence_dkeys", chunkTokens, b.keys,
					v.Address, do.Address, a.states, d.states, d.reads, d.writes, uint64(v.Stride), uint64(do.Stride))
				dkeys.Grid[2] = 2
				launches = append(launches,
					b.tiles("linear_recurrence_read", b.keys, b.values, a.reads, do.Address, d.states, uint64(do.Stride)),
					b.chain(d.states, a.total, 0, 1),
					dscores,
					dkeys,
					b.tiles("linear_recurrence_dvalues", chunkTokens, b.values,
						do.Address, a.scores, a.writes, d.states, dv.Address, uint64(do.Stride), uint64(dv.Stride)))
				if !f.fixed() {
					channels := b.count * b.chunks() * b.keys
					launches = append(launches, graph.Launch{Kernel: "linear_recurrence_through", Defines: b.macros,
						Grid: [3]int{parts(channels, 256/32), 1, 1}, Block: [3]int{256, 1, 1},
						Args: []any{a.states, d.states, a.total, d.total, int32(channels), int32(b.values)}})
				}
				inputs := b.launch("linear_recurrence_inputs", parts(b.keys, 32), q.Address, k.Address, g.Address,
					d.scores, d.reads, d.writes, d.total, dq.Address, dk.Address, dg.Address,
					uint64(q.Stride), uint64(k.Stride), uint64(g.Stride), uint64(dq.Stride), uint64(dk.Stride), uint64(dg.Stride), b.start)
				inputs.Block = [3]int{128, 1, 1}
				inputs.Args = append(inputs.Args, int32(b.keys), b.scale())
				launches = append(launches, inputs)
			})
			return launches, nil
		},
	}
}
