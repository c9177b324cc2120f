package attention

import (
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// call is an op with device buffers of one type that contain nothing. pad widens the rows.
func call(t *testing.T, s *graph.Spec, dims graph.Dims, dtype graph.DType, pad int) *graph.CUDACall {
	t.Helper()
	r, err := s.ResolveDims(dims)
	if err != nil {
		t.Fatal(err)
	}
	c := &graph.CUDACall{Dims: r.Dims, Workspace: 1 << 40, Multiprocessors: 132}
	buffers := func(list []graph.Operand) (out []graph.DeviceBuffer) {
		for i, o := range list {
			b := graph.DeviceBuffer{Address: uint64(i+1) << 30, DType: dtype, Rows: o.Shape.Rows(), Cols: o.Shape.Cols()}
			b.Stride = b.Cols + pad
			if o.Kind == graph.Precise {
				b.DType = graph.Float32
			}
			out = append(out, b)
		}
		return out
	}
	c.In, c.Out = buffers(r.In), buffers(r.Out)
	return c
}

// TestCUDAKernels: tensor-core kernels are used wherever possible, rows.cu otherwise.
func TestCUDAKernels(t *testing.T) {
	tiles := []string{"attention_tiles", "attention_delta", "attention_dkv_tiles", "attention_dq_tiles"}
	warpgroups := []string{"attention_begin", "attention_warpgroups", "attention_delta", "attention_backward_warpgroups", "attention_dq_round"}
	wide := []string{"attention_begin", "attention_warpgroups", "attention_delta", "attention_gradient", "attention_gradient_join", "attention_gradient", "attention_gradient_join", "attention_gradient"}
	rows := []string{"attention_rows", "attention_delta", "attention_dkv_rows", "attention_dq_rows"}
	for _, c := range []struct {
		name       string
		capability int
		headDim    int
		dtype      graph.DType
		pad        int
		want       []string
	}{
		{"bf16", 80, 128, graph.BFloat16, 0, tiles},
		{"narrow head", 80, 64, graph.BFloat16, 0, tiles},
		{"wide head", 80, 256, graph.BFloat16, 0, tiles},
		{"strided", 80, 128, graph.BFloat16, 8, tiles},
		{"unaligned rows", 80, 128, graph.BFloat16, 4, rows},
		{"another head", 80, 96, graph.BFloat16, 0, rows},
		{"float32", 80, 128, graph.Float32, 0, rows},
		{"Hopper", 90, 128, graph.BFloat16, 0, warpgroups},
		{"Hopper, strided", 90, 128, graph.BFloat16, 8, warpgroups},
		{"Hopper, unaligned rows", 90, 128, graph.BFloat16, 4, rows},
		{"Hopper, narrow head", 90, 64, graph.BFloat16, 0, warpgroups},
		{"Hopper, wide head", 90, 256, graph.BFloat16, 0, wide},
		{"Hopper, float32", 90, 128, graph.Float32, 0, rows},
		{"Blackwell", 100, 128, graph.BFloat16, 0, tiles},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, dims := Config{Heads: 4, KVHeads: 2, HeadDim: c.headDim, Window: 100}, graph.Dims{"B": 2, "T": 300}
			var got []string
			for _, s := range []*graph.Spec{Spec(config), backwardSpec(config)} {
				call := call(t, s, dims, c.dtype, c.pad)
				call.Capability = c.capability
				launches, err := s.CUDA.Launches(call)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range launches {
					got = append(got, l.Kernel)
					limit := 99 << 10 // of the GPUs with the least shared memory
					if c.capability == 90 {
						limit = 227 << 10
					}
					if l.Shared > limit {
						t.Errorf("%s: %d bytes of shared memory, more than some GPUs have", l.Kernel, l.Shared)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the kernels are %v, want %v", got, c.want)
			}
		})
	}
}

// TestCUDADocuments: the by-document forms launch the same kernels and pass them the starts.
func TestCUDADocuments(t *testing.T) {
	narrow, wide, dims := Config{Heads: 4, KVHeads: 2, HeadDim: 128, Window: 100}, Config{Heads: 4, KVHeads: 2, HeadDim: 256}, graph.Dims{"B": 2, "T": 300}
	for _, capability := range []int{80, 90} {
		for _, s := range []*graph.Spec{Spec(narrow), backwardSpec(narrow), backwardSpec(wide)} {
			plain := call(t, s, dims, graph.BFloat16, 0)
			plain.Capability = capability
			documents := *plain
			start := graph.DeviceBuffer{Address: 77 << 30, DType: graph.Int32, Rows: 2, Cols: 300, Stride: 300}
			documents.In = append(slices.Clone(plain.In), start)
			want, err := s.CUDA.Launches(plain)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.CUDAByDocument.Launches(&documents)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%s, %d: %d launches, want %d", s.Name, capability, len(got), len(want))
			}
			for i, l := range got {
				_, compiled := l.Defines["DOCUMENTS"]
				sees := !slices.Contains([]string{"attention_begin", "attention_delta", "attention_dq_round", "attention_gradient_join"}, l.Kernel) // looks at pairs
				if l.Kernel != want[i].Kernel || sees && !compiled || sees != slices.Contains(l.Args, any(start.Address)) {
					t.Errorf("%s, %d: %s, %v, %v; want %s, compiled with DOCUMENTS and given starts where it looks at pairs",
						s.Name, capability, l.Kernel, l.Defines, l.Args, want[i].Kernel)
				}
			}
		}
	}
}

// TestTilings checks the constraints that the kernels place on the sizes in the tables.
func TestTilings(t *testing.T) {
	check := func(kernel string, headDim int, s tiling) {
		rows := 32 * s.warps / (headDim / 8) // rows that a block copies at once
		if s.step%16 != 0 || s.step%rows != 0 {
			t.Errorf("%s, head width %d: a block copies %d rows at once, which don't divide a step of %d", kernel, headDim, rows, s.step)
		}
		if n := 16 * s.rowTiles * s.warps; padded(graph.Dims{"T": 1})%n != 0 || padded(graph.Dims{"T": 1})%s.step != 0 {
			t.Errorf("%s, head width %d: tiles of %d and steps of %d don't divide the padding", kernel, headDim, n, s.step)
		}
	}
	for kernel, table := range map[string]map[int]tiling{"forward": forwardTiling, "dkv": dkvTiling, "dq": dqTiling} {
		for headDim, s := range table {
			check(kernel, headDim, s)
		}
	}
}

// TestSums: the batches cover all pairs and fit in the available space, or have one pair each.
func TestSums(t *testing.T) {
	for _, c := range []struct {
		dims                   graph.Dims
		pairs, batches, counts int
	}{
		{graph.Dims{"B": 8, "T": 4096, "H": 12, "K": 12, "D": 128}, 96, 1, 8*12*64 + 1},
		{graph.Dims{"B": 1, "T": 333, "H": 2, "K": 1, "D": 128}, 1, 1, 2*6 + 1},
		{graph.Dims{"B": 1, "T": 65536, "H": 12, "K": 12, "D": 128}, 8, 2, 12*1024 + 2},
		{graph.Dims{"B": 4, "T": 4096, "H": 32, "K": 4, "D": 64}, 16, 1, 4*32*32 + 1},
		{graph.Dims{"B": 1, "T": 262144, "H": 12, "K": 4, "D": 128}, 1, 4, 12*4096 + 4},
	} {
		s := sumsOf(c.dims)
		if s.pairs != c.pairs || s.batches != c.batches || s.counts() != c.counts {
			t.Errorf("%v: %d batches of %d pairs, %d counts, want %d of %d, %d", c.dims, s.batches, s.pairs, s.counts(), c.batches, c.pairs, c.counts)
		}
		if s.pairs > 1 && s.bytes() > sumsRoom {
			t.Errorf("%v: %d bytes, more than there is room for", c.dims, s.bytes())
		}
	}
}

// TestGradientParts: a few key heads shared by many queries are cut up, many key heads are not.
func TestGradientParts(t *testing.T) {
	for _, c := range []struct {
		dims graph.Dims
		want int
	}{
		{graph.Dims{"B": 1, "T": 4096, "H": 11, "K": 1, "D": 256}, 11},
		{graph.Dims{"B": 8, "T": 4096, "H": 6, "K": 1, "D": 256}, 2},
		{graph.Dims{"B": 1, "T": 333, "H": 2, "K": 2, "D": 256}, 1},
		{graph.Dims{"B": 1, "T": 262144, "H": 11, "K": 1, "D": 256}, 1},
	} {
		if got := gradientParts(c.dims); got != c.want {
			t.Errorf("%v: %d parts, want %d", c.dims, got, c.want)
		}
		if n := gradientBytes(c.dims); (n > 0) != (c.want > 1) {
			t.Errorf("%v: %d bytes of %d parts", c.dims, n, c.want)
		}
	}
}

// TestParts: decoding is split among warps, prefill is not.
func TestParts(t *testing.T) {
	for _, c := range []struct{ tokens, slots, want int }{
		{1, 2048, 64},
		{1, 40, 1},
		{64, 2048, 6},
		{4096, 2048, 1},
	} {
		if got := parts(graph.Dims{"B": 1, "T": c.tokens, "H": 12, "W": c.slots}); got != c.want {
			t.Errorf("%d tokens and %d slots: %d parts, want %d", c.tokens, c.slots, got, c.want)
		}
	}
}

// TestToken: a decode step uses token.cu, except with long caches and many or few heads.
func TestToken(t *testing.T) {
	const multiprocessors, most = 132, 227 << 10
	for _, c := range []struct {
		config      Config
		rows, slots int
		want        tokenTiling
		ok          bool
	}{
		{Config{32, 4, 64, 2048}, 1, 2048, tokenTiling{8, 4, 32, 2}, true},
		{Config{32, 4, 64, 2048}, 4, 2048, tokenTiling{8, 4, 32, 2}, true},
		{Config{32, 4, 64, 2048}, 8, 2048, tokenTiling{8, 2, 32, 2}, true},
		{Config{32, 4, 64, 2048}, 16, 2048, tokenTiling{2, 4, 32, 4}, true},
		{Config{32, 4, 64, 2048}, 20, 2048, tokenTiling{4, 2, 32, 2}, true},
		{Config{12, 12, 128, 2048}, 1, 2048, tokenTiling{8, 4, 16, 2}, true},
		{Config{12, 12, 128, 2048}, 16, 2048, tokenTiling{2, 4, 16, 2}, true},
		{Config{18, 18, 128, 2048}, 16, 2048, tokenTiling{4, 4, 16, 2}, true},
		{Config{12, 12, 128, 0}, 16, 65536, tokenTiling{2, 4, 16, 2}, false},
		{Config{16, 1, 256, 2048}, 64, 2048, tokenTiling{2, 2, 16, 4}, true},
		{Config{32, 4, 64, 0}, 1, 65536, tokenTiling{8, 4, 32, 2}, false},
		{Config{32, 4, 64, 0}, 2, 65536, tokenTiling{8, 4, 32, 2}, true},
		{Config{32, 4, 64, 0}, 8, 65536, tokenTiling{4, 4, 32, 2}, true},
		{Config{32, 4, 64, 0}, 16, 65536, tokenTiling{2, 8, 32, 3}, true},
		{Config{64, 4, 64, 0}, 16, 65536, tokenTiling{2, 8, 32, 2}, true},
		{Config{16, 1, 256, 0}, 64, 65536, tokenTiling{2, 4, 16, 2}, true},
	} {
		d := graph.Dims{"B": c.rows, "T": 1, "W": c.slots, "H": c.config.Heads, "K": c.config.KVHeads, "D": c.config.HeadDim}
		got, ok := tokenTilingOf(d, multiprocessors)
		if got != c.want || ok != c.ok {
			t.Errorf("%+v, %d rows of %d: %v, %v, want %v, %v", c.config, c.rows, c.slots, got, ok, c.want, c.ok)
		}
		if n := got.shared(d); n > most {
			t.Errorf("%+v, %d rows: %d bytes of shared memory, of %d", c.config, c.rows, n, most)
		}
	}
}
