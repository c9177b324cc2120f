package attention

import (
	"embed"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed *.cu
var files embed.FS

// source is all of the kernels' files, each enabled by its own macro.
var source = func() string {
	var s strings.Builder
	for _, name := range []string{"visible", "delta", "rows", "rows_forward", "rows_backward", "carry",
		"tiles", "tiles_queries", "tiles_forward", "turning", "tiles_carry", "token", "tiles_dkv", "tiles_dq", "wgmma_instructions", "wgmma", "wgmma_barriers", "wgmma_forward", "wgmma_backward", "wgmma_gradient"} {
		fmt.Fprintf(&s, "#ifdef %s\n%s#endif\n", macro(name), graph.CUDAFile(files, name))
	}
	return s.String()
}()

// macro returns the macro that enables a file.
func macro(file string) string { return strings.ToUpper(file) + "_CU" }

// operands are buffers by the name that the source uses for their type.
type operands map[string]graph.DeviceBuffer

// macros returns the macros that enable the given files, with the head width and the operands'
// types.
func (c Config) macros(types operands, files ...string) map[string]string {
	m := map[string]string{"HEAD_DIM": strconv.Itoa(c.HeadDim)}
	for name, b := range types {
		m[name] = b.DType.CType()
	}
	for _, f := range files {
		m[macro(f)] = "1"
	}
	return m
}

const log2e = 1.4426950408889634

func (c Config) scale() float32 { return float32(1 / math.Sqrt(float64(c.HeadDim))) }

// pass is a call, with the documents of its sequences.
type pass struct {
	*graph.CUDACall
	start uint64 // where the document of each token begins, int32 [B T]; 0 without documents
}

// passes takes `start`, the last input, from calls of the by-document forms.
func passes(byDocument bool, launches func(p pass) []graph.Launch) func(call *graph.CUDACall) ([]graph.Launch, error) {
	return func(call *graph.CUDACall) ([]graph.Launch, error) {
		p := pass{CUDACall: call}
		if byDocument {
			p.start = call.In[len(call.In)-1].Address
		}
		list := launches(p)
		for _, l := range list {
			if _, ok := l.Defines[macro("visible")]; ok && byDocument {
				l.Defines["DOCUMENTS"] = "1"
			}
		}
		return list, nil
	}
}

func (c Config) cuda(byDocument bool) *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Launches: passes(byDocument, func(p pass) []graph.Launch {
			switch c.kernels(p, p.In[0], p.In[1], p.In[2], p.Out[0]) {
			case onWarpgroups:
				return c.forwardWarpgroups(p)
			case onTiles:
				return []graph.Launch{c.forwardTiles(p)}
			}
			return []graph.Launch{c.forwardRows(p)}
		}),
		Workspace: func(graph.Dims) int { return 4 }, // a ticket
	}
}

func (c Config) backwardCUDA(byDocument bool) *graph.CUDA {
	return &graph.CUDA{
		Source:    source,
		Launches:  passes(byDocument, func(p pass) []graph.Launch { return c.backwardLaunches(p, 0) }),
		Workspace: func(d graph.Dims) int { return int(workspaceOf(d, 0).end) },
	}
}

// backwardLaunches returns the launches of the backward pass. If base is not 0, the warpgroup
// kernels apply the inverse rotation to dq and dk.
func (c Config) backwardLaunches(p pass, base float64) []graph.Launch {
	w := workspaceOf(p.Dims, p.Workspace)
	list := []graph.Launch{c.delta(p, w, base)}
	switch c.kernels(p, backwardOperands(p)...) {
	case onWarpgroups:
		if c.HeadDim == gradientWidth {
			return append(list, c.gradientWarpgroups(p, w, base)...)
		}
		return append(list, c.backwardWarpgroups(p, w, base)...)
	case onTiles:
		return append(list, c.dkvTiles(p, w), c.dqTiles(p, w))
	}
	return append(list, c.backwardRows(p, w)...)
}

// backwardOperands are the operands that the kernels for aligned bfloat16 access.
func backwardOperands(p pass) []graph.DeviceBuffer {
	return []graph.DeviceBuffer{p.In[0], p.In[1], p.In[2], p.In[5], p.Out[0], p.Out[1], p.Out[2]}
}

// kernels names one of the three sets of kernels.
type kernels int

const (
	onRows       kernels = iota // any operands
	onTiles                     // tensor cores
	onWarpgroups                // Hopper's
)

func (c Config) kernels(p pass, operands ...graph.DeviceBuffer) kernels {
	for _, o := range operands {
		if o.DType != graph.BFloat16 || o.Address%16 != 0 || o.Stride%8 != 0 {
			return onRows
		}
	}
	if _, ok := forwardTiling[c.HeadDim]; !ok {
		return onRows
	}
	if p.Capability == hopper {
		return onWarpgroups
	}
	return onTiles
}

// workspace is the layout of the backward workspace: the output of attention_delta, float32 [B H
// padded], namely delta and the log-sum-exps in base 2; and for head widths that have warpgroup
// kernels, the frequencies of a rotation, the sums or the partial sums, and the counts.
type workspace struct {
	delta, lse2, frequencies, sums, counts, end uint64
}

func workspaceOf(d graph.Dims, at uint64) workspace {
	w := workspace{delta: at}
	w.lse2 = w.delta + uint64(4*d["B"]*d["H"]*padded(d))
	w.frequencies = w.lse2 + uint64(4*d["B"]*d["H"]*padded(d))
	w.sums = w.frequencies + uint64(8*d["D"]/2)
	w.counts, w.end = w.sums, w.sums
	if _, ok := backwardStages[d["D"]]; ok {
		s := sumsOf(d)
		w.counts += uint64(s.bytes())
		w.end = w.counts + uint64(4*s.counts())
	} else if d["D"] == gradientWidth {
		w.counts += uint64(gradientBytes(d))
		w.end = w.counts
	}
	return w
}

// padded is T rounded up to whole query tiles of any kernel.
func padded(d graph.Dims) int { return (d["T"] + 127) / 128 * 128 }

func (c Config) delta(call pass, w workspace, base float64) graph.Launch {
	o, lse, do, d := call.In[3], call.In[4], call.In[5], call.Dims
	macros := c.macros(operands{"O_T": o, "DO_T": do}, "delta")
	vector := width(c.HeadDim, o, do)
	lanes := 1 // lanes of a warp that share a query
	for lanes < 32 && lanes*vector < c.HeadDim {
		lanes *= 2
	}
	macros["WIDTH"], macros["LANES"] = strconv.Itoa(vector), strconv.Itoa(lanes)
	const threads = 128
	return graph.Launch{
		Kernel:  "attention_delta",
		Defines: macros,
		Grid:    [3]int{ceil(d["B"]*padded(d)*d["H"], threads/lanes), 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args: []any{o.Address, do.Address, lse.Address, w.delta, w.lse2, w.frequencies, math.Float64bits(base),
			w.counts, int32((w.end - w.counts) / 4), int32(d["B"]), int32(d["T"]), int32(padded(d)), int32(d["H"]), uint64(o.Stride), uint64(lse.Stride), uint64(do.Stride)},
	}
}

// width returns how many channels of a head can be accessed at once: 16 bytes of the widest
// operand, or 1 channel if the operands aren't aligned.
func width(headDim int, operands ...graph.DeviceBuffer) int {
	n := 8
	for _, o := range operands {
		n = min(n, 16/o.DType.Size())
	}
	for _, o := range operands {
		bytes := n * o.DType.Size()
		if headDim%n != 0 || o.Stride%n != 0 || o.Address%uint64(bytes) != 0 {
			return 1
		}
	}
	return n
}

func ceil(n, by int) int { return (n + by - 1) / by }
