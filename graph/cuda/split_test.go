//go:build linux

package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestSplit: for an MLP whose hidden width is not a multiple of 8, every product becomes one with
// aligned rows and small ones.
func TestSplit(t *testing.T) {
	const bf16, f32 = graph.BFloat16, graph.Float32
	const tokens, d, f, padded = 16384, 2048, 8196, 8200
	const x, w, y = 1 << 30, 2 << 30, 3 << 30
	type size [3]int
	for _, c := range []struct {
		name string
		p    graph.Product
		want []size
	}{
		{"gate", graph.Product{M: tokens, N: f, K: d, TransB: true, A: x, LDA: d, TypeA: bf16, B: w, LDB: d, TypeB: bf16, C: y, LDC: padded, TypeC: bf16},
			[]size{{tokens, 8192, d}, {tokens, 4, d}}},
		{"down", graph.Product{M: tokens, N: d, K: f, TransB: true, A: x, LDA: padded, TypeA: bf16, B: w, LDB: padded, TypeB: bf16, C: y, LDC: d, TypeC: f32, Beta: 1},
			[]size{{tokens, d, 8192}, {tokens, d, 4}}},
		{"down, in bfloat16", graph.Product{M: tokens, N: d, K: f, TransB: true, A: x, LDA: padded, TypeA: bf16, B: w, LDB: padded, TypeB: bf16, C: y, LDC: d, TypeC: bf16},
			[]size{{tokens, d, f}}},
		{"dup", graph.Product{M: f, N: d, K: tokens, TransA: true, A: x + 2*f, LDA: 2 * f, TypeA: bf16, B: w, LDB: d, TypeB: bf16, C: y, LDC: d, TypeC: f32},
			[]size{{4, d, tokens}, {8192, d, tokens}}},
		{"ddown", graph.Product{M: d, N: f, K: tokens, TransA: true, A: x, LDA: d, TypeA: bf16, B: w, LDB: padded, TypeB: bf16, C: y, LDC: f, TypeC: f32, Beta: 1, From: y, LDFrom: f},
			[]size{{d, 8192, tokens}, {d, 4, tokens}}},
		{"both gradients", graph.Product{M: tokens, N: d, K: 2 * f, A: x, LDA: 2 * f, TypeA: bf16, B: w, LDB: d, TypeB: bf16, C: y, LDC: d, TypeC: bf16},
			[]size{{tokens, d, 2 * f}}},
		{"rows that begin anywhere", graph.Product{M: tokens, N: f, K: d, TransB: true, A: x, LDA: d, TypeA: bf16, B: w, LDB: d, TypeB: bf16, C: y, LDC: f, TypeC: bf16},
			[]size{{tokens, f, d}}},
		{"float32", graph.Product{M: tokens, N: f, K: d, TransB: true, A: x, LDA: d, B: w, LDB: d, C: y, LDC: f},
			[]size{{tokens, f, d}}},
		{"small", graph.Product{M: 8, N: f, K: d, TransB: true, A: x, LDA: d, TypeA: bf16, B: w, LDB: d, TypeB: bf16, C: y, LDC: padded, TypeC: bf16},
			[]size{{8, f, d}}},
	} {
		var got []size
		for _, q := range split(c.p) {
			got = append(got, size{q.M, q.N, q.K})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: parts are %v, want %v", c.name, got, c.want)
		}
	}
}

// TestWiden: rows with room after them are extended, and the room is filled with zeros.
func TestWiden(t *testing.T) {
	const bf16 = graph.BFloat16
	down := graph.Product{M: 1000, N: 2048, K: 8196, TransB: true, A: 1 << 30, LDA: 8200, PadA: 4, TypeA: bf16,
		B: 2 << 30, LDB: 8200, PadB: 4, TypeB: bf16, C: 3 << 30, LDC: 2048}
	p, zeros := widen(down)
	want := [][]any{{uint64(1<<30 + 2*8196), uint64(8200), int32(1000), int32(4)}, {uint64(2<<30 + 2*8196), uint64(8200), int32(2048), int32(4)}}
	if p.K != 8200 || len(zeros) != 2 || !slices.Equal(zeros[0].Args, want[0]) || !slices.Equal(zeros[1].Args, want[1]) ||
		zeros[0].Grid[0]*zeros[0].Block[0] < 1000 {
		t.Errorf("K = %d, zeros %+v", p.K, zeros)
	}
	for name, change := range map[string]func(p *graph.Product){
		"room is other tensors'":   func(p *graph.Product) { p.PadB = 3 },
		"float32":                  func(p *graph.Product) { p.TypeA = graph.Float32 },
		"K is no row":              func(p *graph.Product) { p.TransA = true },
		"a multiple of 16 bytes":   func(p *graph.Product) { p.K = 8192 },
		"K is no row of the other": func(p *graph.Product) { p.TransB = false },
	} {
		same := down
		change(&same)
		if p, zeros := widen(same); p != same || zeros != nil {
			t.Errorf("%s: %+v, zeros %+v", name, p, zeros)
		}
	}
}

// TestParts: the parts of a product give the same result as the whole.
func TestParts(t *testing.T) {
	const m, n, k, ld = 5, 6, 7, 11
	r := rand.New(rand.NewPCG(1, 2))
	for variant := range 16 {
		memory := make([]int, 4*ld*ld)
		for i := range memory {
			memory[i] = r.IntN(9) - 4
		}
		other := slices.Clone(memory)
		p := graph.Product{M: m, N: n, K: k, TransA: variant&1 > 0, TransB: variant&2 > 0, LDA: ld, LDB: ld, LDC: ld, LDFrom: ld,
			A: 0, B: 4 * ld * ld, C: 8 * ld * ld, Beta: float32(variant >> 2 & 1)}
		if variant&8 > 0 {
			p.From = 12 * ld * ld
		}
		multiply(memory, p)
		for i := range 2 {
			for j := range 2 {
				for l := range 2 {
					at, size := [3]int{3 * i, 2 * j, 4 * l}, [3]int{[]int{3, 2}[i], []int{2, 4}[j], []int{4, 3}[l]}
					multiply(other, part(p, at, size))
				}
			}
		}
		if !slices.Equal(memory, other) {
			t.Errorf("%+v: parts make %v, the whole %v", p, other, memory)
		}
	}
}

// multiply computes a product in a memory with 4 bytes per element.
func multiply(memory []int, p graph.Product) {
	from, ldFrom := p.From, p.LDFrom
	if from == 0 {
		from, ldFrom = p.C, p.LDC
	}
	at := func(address uint64, row, col, ld int, transposed bool) *int {
		if transposed {
			row, col = col, row
		}
		return &memory[int(address/4)+row*ld+col]
	}
	for i := range p.M {
		for j := range p.N {
			sum := int(p.Beta) * *at(from, i, j, ldFrom, false)
			for l := range p.K {
				sum += *at(p.A, i, l, p.LDA, p.TransA) * *at(p.B, l, j, p.LDB, p.TransB)
			}
			*at(p.C, i, j, p.LDC, false) = sum
		}
	}
}
