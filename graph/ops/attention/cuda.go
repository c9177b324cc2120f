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

// source is all of the kernels' files, each where its macro is defined.
var source = func() string {
	var s strings.Builder
	for _, name := range []string{"delta", "rows", "rows_forward", "rows_backward", "carry",
		"tiles", "tiles_forward", "tiles_dkv", "tiles_dq", "wgmma_instructions", "wgmma", "wgmma_forward", "wgmma_dkv", "wgmma_dq"} {
		text, err := files.ReadFile(name + ".cu")
		if err != nil {
			panic(err) // the list and the folder disagree
		}
		fmt.Fprintf(&s, "#ifdef %s\n#line 1 \"%s.cu\"\n%s#endif\n", macro(name), name, text)
	}
	return s.String()
}()

// macro is the one that includes a file.
func macro(file string) string { return strings.ToUpper(file) + "_CU" }

// operands are buffers by the name that the source has for their type.
type operands map[string]graph.DeviceBuffer

// macros includes files of the source, with the head width and the operands' types.
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

func (c Config) scale() float32 { return float32(1 / math.Sqrt(float64(c.HeadDim))) }

func (c Config) cuda() *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Launches: func(call *graph.CUDACall) ([]graph.Launch, error) {
			in, out := call.In, call.Out
			if c.fitTiles(in[0], in[1], in[2], out[0]) {
				return []graph.Launch{c.forwardTiles(call)}, nil
			}
			return []graph.Launch{c.forwardRows(call)}, nil
		},
	}
}

func (c Config) backwardCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Launches: func(call *graph.CUDACall) ([]graph.Launch, error) {
			in, out := call.In, call.Out
			delta, s := c.delta(call)
			if c.fitTiles(in[0], in[1], in[2], in[5], out[0], out[1], out[2]) {
				return []graph.Launch{delta, c.dkvTiles(call, s), c.dqTiles(call, s)}, nil
			}
			return append([]graph.Launch{delta}, c.backwardRows(call, s)...), nil
		},
		Workspace: func(d graph.Dims) int { return 2 * 4 * d["B"] * d["H"] * padded(d) },
	}
}

// statistics are what attention_delta leaves in the workspace, float32 [B H padded]:
// delta and, in base 2, the log-sum-exps.
type statistics struct {
	delta, lse2 uint64
	padded      int
}

// padded is T in whole tiles of queries, of any kernel.
func padded(d graph.Dims) int { return (d["T"] + 127) / 128 * 128 }

func (c Config) delta(call *graph.CUDACall) (graph.Launch, statistics) {
	o, lse, do, d := call.In[3], call.In[4], call.In[5], call.Dims
	s := statistics{delta: call.Workspace, padded: padded(d)}
	s.lse2 = s.delta + uint64(4*d["B"]*d["H"]*s.padded)
	macros := c.macros(operands{"O_T": o, "DO_T": do}, "delta")
	macros["WIDTH"] = strconv.Itoa(width(c.HeadDim, o, do))
	const warps = 4
	return graph.Launch{
		Kernel:  "attention_delta",
		Defines: macros,
		Grid:    [3]int{ceil(d["B"]*s.padded*d["H"], warps), 1, 1},
		Block:   [3]int{32 * warps, 1, 1},
		Args: []any{o.Address, do.Address, lse.Address, s.delta, s.lse2,
			int32(d["B"]), int32(d["T"]), int32(s.padded), int32(d["H"]), uint64(o.Stride), uint64(lse.Stride), uint64(do.Stride)},
	}, s
}

// width is how many channels of a head can be moved at once: 16 bytes of the widest
// operand, or 1 where these aren't aligned.
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
