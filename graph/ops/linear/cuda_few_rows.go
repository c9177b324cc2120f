package linear

import (
	"embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed *.cu
var files embed.FS

// source is few_rows.cu and one of the kernels, selected by its macro.
var source = func() string {
	var s strings.Builder
	for _, name := range []string{"few_rows", "any_rows", "one_row", "tile_rows"} {
		text, err := files.ReadFile(name + ".cu")
		if err != nil {
			panic(err) // the list and the folder disagree
		}
		if name == "few_rows" {
			fmt.Fprintf(&s, "#line 1 \"few_rows.cu\"\n%s", text)
			continue
		}
		fmt.Fprintf(&s, "#ifdef %s\n#line 1 \"%s.cu\"\n%s#endif\n", strings.ToUpper(name), name, text)
	}
	return s.String()
}()

// fewRows is a product of few rows with the ops fused into it.
type fewRows struct {
	x, w, y graph.DeviceBuffer
	gain    uint64 // of the norm before it; 0 for none
	epsilon float64
	gated   bool
	z       graph.DeviceBuffer // added; Address is 0 for none
	toHost  bool               // y is in host memory
	convolved
}

const (
	sharedBytes  = 99 << 10 // the most that a block can have on every supported GPU
	hopper       = 90       // the capability from which on there are clusters
	vectorBytes  = 16
	fewestInputs = 64 // the smallest K that is worth a kernel of its own
)

// fits reports whether a kernel other than linear_any_rows supports it: bfloat16, contiguous rows
// of w, and w, x and y aligned for vector accesses.
func (p fewRows) fits() bool {
	k, x := p.w.Cols, p.x
	vector := p.vector()
	xBytes := vector * x.DType.Size()
	if p.gain != 0 {
		xBytes = vectorBytes
	}
	switch {
	case p.y.Rows > graph.FewRows || !p.w.Fixed || p.w.DType != graph.BFloat16 || p.w.Stride != k || k < fewestInputs || k%4 != 0:
		return false
	case p.gain == 0 && x.DType != graph.BFloat16 || p.z.Address != 0 && p.z.DType != graph.Float32:
		return false
	case x.Address%uint64(xBytes) != 0 || x.Stride*x.DType.Size()%xBytes != 0 && x.Rows > 1 || p.gain%vectorBytes != 0:
		return false
	}
	return p.w.Address%uint64(vector*2) == 0
}

// vector is the number of weights that are loaded at once.
func (p fewRows) vector() int {
	if p.w.Cols%8 == 0 {
		return 8
	}
	return 4
}

// launch is the kernel for it on a GPU; slow permits linear_any_rows. ok is false if there is none.
func (p fewRows) launch(c *graph.CUDACall, slow bool) (l graph.Launch, ok bool) {
	if c.Host.Address != 0 && !p.toHost && p.y.Rows > 1 && p.w.Cols%8 == 0 {
		q := p
		q.y, q.toHost = c.Host, true
		if l, ok := q.launch(c, false); ok {
			return l, true
		}
	}
	l = graph.Launch{
		Early:   true,
		ToHost:  p.toHost,
		Defines: map[string]string{"K": strconv.Itoa(p.w.Cols), "X_T": p.x.DType.CType(), "W_T": p.w.DType.CType(), "Y_T": p.y.DType.CType()},
		Args: []any{p.x.Address, p.gain, p.w.Address, p.z.Address, p.y.Address, int32(p.y.Rows), int32(p.y.Cols), float32(p.epsilon),
			uint64(p.x.Stride), uint64(p.w.Stride), uint64(p.z.Stride), uint64(p.y.Stride)},
	}
	if p.channels > 0 {
		l.Defines["TAPS"] = strconv.Itoa(p.reach)
		l.Args = append(l.Args, p.taps, p.bias, p.tail, int32(p.channels))
	}
	if p.gain != 0 {
		l.Defines["NORM"] = "1"
	}
	if p.gated {
		l.Defines["GATED"] = "1"
	}
	switch {
	case p.fits() && p.y.Rows == 1 && p.oneRow(&l, c), p.fits() && p.y.Rows > 1 && p.tileRows(&l, c):
		return l, true
	case slow:
		const warps = 8
		set(&l, "any_rows", warps, 1)
		l.Grid = [3]int{(p.y.Rows*p.y.Cols + warps - 1) / warps, 1, 1}
		return l, true
	}
	return l, false
}

func (p fewRows) matrices() int {
	if p.gated {
		return 2
	}
	return 1
}

// oneRow sets up linear_one_row; it returns false if a column is too long for a block.
func (p fewRows) oneRow(l *graph.Launch, c *graph.CUDACall) bool {
	// Two blocks fill an SM: with room for a third, the blocks of a kernel that starts early would
	// be placed two on one SM and none on another. Long columns need more registers.
	const warps, most = 16, 16
	resident, loads, k := 2, 4, p.w.Cols
	pieces := func() int { return (k/8 + 32*loads - 1) / (32 * loads) }
	for ; p.matrices()*pieces() > warps; resident = 1 {
		if loads *= 2; loads > most {
			return false
		}
	}
	shared := 2 * ((k + 7) / 8 * 8)
	if k%8 != 0 {
		shared *= 2
	}
	if shared > sharedBytes/resident {
		return false
	}
	set(l, "one_row", warps, resident)
	l.Defines["LOADS"] = strconv.Itoa(loads)
	chunk := warps / (p.matrices() * pieces())
	l.Grid = [3]int{min(resident*c.Multiprocessors, (p.y.Cols+chunk-1)/chunk), 1, 1}
	l.Shared, l.Args = shared, append(l.Args, c.Counter)
	return true
}

// tileRows sets up linear_tile_rows; it returns false if there is not enough shared memory.
func (p fewRows) tileRows(l *graph.Launch, c *graph.CUDACall) bool {
	if p.w.Cols%8 != 0 && p.w.Address%vectorBytes != 0 {
		return false
	}
	t, ok := tilesOf(p, c)
	if !ok {
		return false
	}
	move := 8
	if p.gain == 0 && (p.x.Address%vectorBytes != 0 || p.x.Stride%8 != 0) {
		move = 4
	}
	set(l, "tile_rows", t.workers+t.helpers, t.resident)
	for name, n := range map[string]int{"STEP": t.step, "AHEAD": t.ahead, "FLIGHT": t.flight, "HELPERS": t.helpers, "ROUNDS": t.rounds, "SPLIT": t.split, "PARTS": t.parts, "X_VECTOR": move} {
		l.Defines[name] = strconv.Itoa(n)
	}
	l.Grid, l.Shared = [3]int{t.clusters * t.split, 1, 1}, t.shared
	return true
}

func ceil(n, d int) int { return (n + d - 1) / d }

func set(l *graph.Launch, form string, warps, blocks int) {
	l.Kernel = "linear_" + form
	l.Block = [3]int{32 * warps, 1, 1}
	l.Defines[strings.ToUpper(form)], l.Defines["WARPS"], l.Defines["BLOCKS"] = "1", strconv.Itoa(warps), strconv.Itoa(blocks)
}

// forwardCUDA and forwardAddCUDA use a kernel of ours if there are few rows, and otherwise a
// product of cublasLt.
var (
	forwardCUDA = &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		return productOr(c, fewRows{x: c.In[0], w: c.In[1], y: c.Out[0]}, forwardProduct), nil
	}}
	forwardAddCUDA = &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		return productOr(c, fewRows{x: c.In[0], w: c.In[1], z: c.In[2], y: c.Out[0]}, added(forwardProduct)), nil
	}}
)

func productOr(c *graph.CUDACall, p fewRows, product func(*graph.CUDACall) graph.Product) []graph.Launch {
	if l, ok := p.launch(c, false); ok {
		return []graph.Launch{l}
	}
	m := product(c)
	return []graph.Launch{{Product: &m}}
}

// normedCUDA is the form with a norm, gated or not.
func normedCUDA(n graph.Norm, gated bool) *graph.CUDA {
	return &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		p := fewRows{x: c.In[0], gain: c.In[1].Address, w: c.In[2], y: c.Out[0], epsilon: n.Epsilon, gated: gated}
		l, _ := p.launch(c, true)
		return []graph.Launch{l}, nil
	}}
}

// fewRowsTake reports whether a fast kernel can hold all of x in a block's shared memory, on any
// GPU.
func fewRowsTake(d graph.Dims) bool {
	const most = 64 << 10
	return d["K"]%8 == 0 && d["K"] >= fewestInputs && 2*d["B"]*d["T"]*d["K"] <= most
}
