package selective_scan

import (
	"embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed *.cu
var files embed.FS

// source is tiles.cu followed by the other files, each enabled by its own macro.
var source = func() string {
	var s strings.Builder
	for _, name := range []string{"tiles", "chain", "forward", "states", "backward_ends", "backward_tokens", "thread_sums", "backward", "mixed_factors", "backward_mixed", "sums", "step", "step_rows"} {
		condition := "#ifdef " + macro(name)
		if name == "tiles" {
			condition = fmt.Sprintf("#if !defined %s && !defined %s", macro("step"), macro("step_rows"))
		}
		fmt.Fprintf(&s, "%s\n%s#endif\n", condition, graph.CUDAFile(files, name))
	}
	return s.String()
}()

// macro returns the macro that enables a file.
func macro(file string) string { return strings.ToUpper(file) + "_CU" }

// form is one of the op's forms.
type form struct{ gated, carry, byDocument bool }

// addresses holds the inputs of all passes, and documents, the index at which each token's document
// begins.
type addresses struct {
	u, dt, bm, cm, z   graph.DeviceBuffer
	dtBias, aLog, skip uint64
	documents          uint64
}

func (f form) addresses(c *graph.CUDACall) addresses {
	in := c.In
	o := addresses{u: in[0], dt: in[1], bm: in[4], cm: in[5], z: in[0], dtBias: in[2].Address, aLog: in[3].Address, skip: in[6].Address}
	if f.gated {
		o.z = in[7]
	}
	if f.byDocument {
		o.documents = in[len(in)-1].Address
	}
	return o
}

// octets returns the inputs [B T C] and the others: the tensors that kernels access 8 channels at a
// time.
func (o addresses) octets(f form, others ...graph.DeviceBuffer) []graph.DeviceBuffer {
	if f.gated {
		others = append(others, o.z)
	}
	return append(others, o.u, o.dt)
}

// types maps the macros of the inputs' types to the inputs.
func (o addresses) types() map[string]graph.DeviceBuffer {
	return map[string]graph.DeviceBuffer{"U_T": o.u, "DT_T": o.dt, "B_T": o.bm, "C_T": o.cm, "Z_T": o.z}
}

func (f form) forward() *graph.CUDA {
	return &graph.CUDA{
		Source:    source,
		Workspace: func(d graph.Dims) int { return 2 * forwardTiling(d).edgeBytes(d) },
		Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			d, o, y := c.Dims, f.addresses(c), c.Out[0]
			if f.carry && d["T"] == 1 {
				return []graph.Launch{f.step(c, o)}, nil
			}
			var saved graph.DeviceBuffer // none
			var state uint64
			if f.carry {
				state = c.In[len(c.In)-1].Address
			} else if !f.byDocument {
				saved = c.Out[1]
			}
			t := forwardTiling(d)
			types := o.types()
			types["Y_T"], types["H_T"] = y, saved
			macros := t.macros(d, f, types, o.octets(f, y), []graph.DeviceBuffer{o.bm, o.cm}, "chain", "forward")
			launches, starts := t.starts(d, macros, o, state, c.Workspace)
			return append(launches, t.launch("selective_scan", macros, d, t.segments,
				o.u.Address, o.dt.Address, o.dtBias, o.aLog, o.bm.Address, o.cm.Address, o.skip, o.z.Address, o.documents, starts, saved.Address, state,
				y.Address, int32(t.length), int32(d["T"]), int32(d["C"]), int32(o.u.Stride), int32(o.dt.Stride), int32(o.bm.Stride),
				int32(o.cm.Stride), int32(o.z.Stride), int32(y.Stride))), nil
		},
	}
}

// step launches the kernel for one token of each row, as in decoding.
func (f form) step(c *graph.CUDACall, o addresses) graph.Launch {
	d, y, groups := c.Dims, c.Out[0], 4
	for d["N"]%groups != 0 {
		groups /= 2
	}
	macros := f.stepMacros("step", d, y, o.types())
	macros["GROUPS"] = strconv.Itoa(groups)
	return graph.Launch{
		Kernel: "selective_scan_step", Defines: macros,
		Grid: [3]int{ceilDiv(d["C"], 32), d["B"], 1}, Block: [3]int{32 * groups, 1, 1}, Early: true,
		Args: []any{o.u.Address, o.dt.Address, o.dtBias, o.aLog, o.bm.Address, o.cm.Address, o.skip, o.z.Address,
			c.In[len(c.In)-1].Address, y.Address, int32(d["C"]),
			uint64(o.u.Stride), uint64(o.dt.Stride), uint64(o.bm.Stride), uint64(o.cm.Stride), uint64(o.z.Stride), uint64(y.Stride)},
	}
}

// stepMacros are the macros of a kernel for one token, in the named file, except those of its shape.
func (f form) stepMacros(file string, d graph.Dims, y graph.DeviceBuffer, types map[string]graph.DeviceBuffer) map[string]string {
	macros := map[string]string{"N": strconv.Itoa(d["N"]), macro(file): "1", "Y_T": y.DType.CType()}
	for name, b := range types {
		macros[name] = b.DType.CType()
	}
	if f.gated {
		macros["GATED"] = "1"
	}
	return macros
}

// starts returns the launches that compute the states at the start of each segment, given those at
// the start of the first one, and the address where they are stored.
func (t tiling) starts(d graph.Dims, macros map[string]string, o addresses, first, workspace uint64) ([]graph.Launch, uint64) {
	if t.segments == 1 {
		return nil, first
	}
	decays := workspace + uint64(t.edgeBytes(d))
	return []graph.Launch{
		t.ends("selective_scan_ends", macros, d,
			o.u.Address, o.dt.Address, o.dtBias, o.aLog, o.bm.Address, o.skip, o.documents, workspace, decays, int32(t.length),
			int32(d["T"]), int32(d["C"]), int32(o.u.Stride), int32(o.dt.Stride), int32(o.bm.Stride)),
		t.chain(macros, d, workspace, decays, first, 0),
	}, workspace
}

// states returns the launches that save the states before each chunk, as the forward pass does.
func (f form) states(d graph.Dims, o addresses, saved, workspace uint64) []graph.Launch {
	t := forwardTiling(d)
	types := o.types()
	types["Y_T"] = o.u // a placeholder: this kernel has no output
	types["H_T"] = graph.DeviceBuffer{DType: graph.Float32}
	macros := t.macros(d, f, types, o.octets(f), []graph.DeviceBuffer{o.bm, o.cm}, "chain", "forward", "states")
	launches, starts := t.starts(d, macros, o, 0, workspace)
	return append(launches, t.launch("selective_scan_states", macros, d, t.segments,
		o.u.Address, o.dt.Address, o.dtBias, o.aLog, o.bm.Address, o.skip, o.documents, starts, saved, int32(t.length),
		int32(d["T"]), int32(d["C"]), int32(o.u.Stride), int32(o.dt.Stride), int32(o.bm.Stride)))
}

// slicesBytes is the size of the slices' partial dBm and dCm (mixed precision uses half of it), and
// rowsBytes that of the partial parameter gradients of each row and segment.
func (t tiling) slicesBytes(d graph.Dims) int { return 4 * t.slices * d["B"] * d["T"] * 2 * d["N"] }

func (t tiling) rowsBytes(d graph.Dims) int { return 4 * d["B"] * t.segments * (d["N"] + 2) * d["C"] }

// savedBytes is the size of the states that the by-document backward pass computes for itself,
// since its forward pass saves none.
func (f form) savedBytes(d graph.Dims) int {
	if !f.byDocument {
		return 0
	}
	return int(savedBytes(d))
}

func (f form) backward() *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Workspace: func(d graph.Dims) int {
			t := backwardTiling(d)
			size := t.slicesBytes(d) + t.rowsBytes(d) + 2*t.edgeBytes(d)
			if f.byDocument {
				size = max(size, 2*forwardTiling(d).edgeBytes(d))
			}
			return f.savedBytes(d) + size
		},
		Launches: f.backwardLaunches,
	}
}

func (f form) backwardLaunches(c *graph.CUDACall) ([]graph.Launch, error) {
	d, o, out := c.Dims, f.addresses(c), c.Out
	if d["N"] > mostStates {
		return nil, fmt.Errorf("%d states a channel; the GPU's backward pass has room for %d", d["N"], mostStates)
	}
	saved, dy := c.In[len(c.In)-2], c.In[len(c.In)-1]
	slices := c.Workspace + uint64(f.savedBytes(d))
	var launches []graph.Launch
	if f.byDocument {
		saved, dy = graph.DeviceBuffer{Address: c.Workspace, DType: graph.Float32}, c.In[len(c.In)-2]
		launches = f.states(d, o, saved.Address, slices)
	}
	du, ddt, dbm, dcm, dz := out[0], out[1], out[4], out[5], out[0]
	octets := o.octets(f, dy, du, ddt)
	if f.gated {
		dz = out[7]
		octets = append(octets, dz)
	}
	t := backwardTiling(d)
	types := o.types()
	for name, b := range map[string]graph.DeviceBuffer{"H_T": saved, "DY_T": dy, "DU_T": du, "DDT_T": ddt, "DB_T": dbm, "DC_T": dcm, "DZ_T": dz} {
		types[name] = b
	}
	macros := t.macros(d, f, types, octets, []graph.DeviceBuffer{o.bm, o.cm}, "chain", "backward_ends", "backward_tokens", "sums")
	shared := t.sharedBytes()
	if mixedKernel(d, macros) {
		macros[macro("mixed_factors")], macros[macro("backward_mixed")] = "1", "1"
		macros["SLICE_T"] = graph.BFloat16.CType()
		shared = mixedSharedBytes
	} else {
		macros[macro("thread_sums")], macros[macro("backward")] = "1", "1"
		macros["SLICE_T"] = graph.Float32.CType()
	}

	rows := slices + uint64(t.slicesBytes(d))
	var lasts uint64
	if t.segments > 1 {
		lasts = rows + uint64(t.rowsBytes(d))
		decays := lasts + uint64(t.edgeBytes(d))
		launches = append(launches,
			t.ends("selective_scan_backward_ends", macros, d,
				o.dt.Address, o.dtBias, o.aLog, o.cm.Address, o.z.Address, dy.Address, o.documents, lasts, decays, int32(t.length),
				int32(d["T"]), int32(d["C"]), int32(o.dt.Stride), int32(o.cm.Stride), int32(o.z.Stride), int32(dy.Stride)),
			t.chain(macros, d, lasts, decays, 0, 1))
	}
	main := t.launch("selective_scan_backward", macros, d, t.segments,
		o.u.Address, o.dt.Address, o.dtBias, o.aLog, o.bm.Address, o.cm.Address, o.skip, o.z.Address, saved.Address,
		dy.Address, o.documents, lasts, du.Address, ddt.Address, dz.Address, slices, rows, int32(t.length), int32(d["T"]), int32(d["C"]),
		int32(o.u.Stride), int32(o.dt.Stride), int32(o.bm.Stride), int32(o.cm.Stride), int32(o.z.Stride), int32(dy.Stride),
		int32(du.Stride), int32(ddt.Stride), int32(dz.Stride))
	main.Shared = shared
	return append(append(launches, main), t.sums(d, macros, slices, rows, out)...), nil
}

// sums returns the launches that add up slices and rows into the gradients out.
func (t tiling) sums(d graph.Dims, macros map[string]string, slices, rows uint64, out []graph.DeviceBuffer) []graph.Launch {
	const threads = 256
	dbm, dcm := out[4], out[5]
	tokens, width := d["B"]*d["T"], 1
	if d["N"]%4 == 0 {
		width = 4
	}
	return []graph.Launch{{
		Kernel: "selective_scan_sum_slices", Defines: macros,
		Grid: [3]int{ceilDiv(tokens*2*d["N"]/width, threads), 1, 1}, Block: [3]int{threads, 1, 1},
		Args: []any{slices, dbm.Address, dcm.Address, int32(t.slices), int32(tokens), int32(dbm.Stride), int32(dcm.Stride)},
	}, {
		Kernel: "selective_scan_sum_rows", Defines: macros,
		Grid: [3]int{ceilDiv((d["N"]+2)*d["C"], threads), 1, 1}, Block: [3]int{threads, 1, 1},
		Args: []any{rows, out[3].Address, out[2].Address, out[6].Address, int32(d["B"] * t.segments), int32(d["C"])},
	}}
}
