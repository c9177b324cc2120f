//go:build linux

package cuda

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
)

// TestProductKey: products that differ in anything that an algorithm depends on have different
// keys.
func TestProductKey(t *testing.T) {
	product := func(change func(p *graph.Product)) string {
		p := &graph.Product{M: 1, N: 2, K: 3, A: 256, B: 512, C: 1024, From: 1024, LDA: 3, LDB: 3, LDC: 2, LDFrom: 2}
		change(p)
		return productKey(p)
	}
	same := product(func(p *graph.Product) { p.A, p.B = 256*7, 256*9 })
	seen := map[string]int{same: -1}
	if same != product(func(*graph.Product) {}) {
		t.Error("a product's key depends on where its operands are")
	}
	for i, change := range []func(p *graph.Product){
		func(p *graph.Product) { p.M = 4 },
		func(p *graph.Product) { p.N = 4 },
		func(p *graph.Product) { p.K = 4 },
		func(p *graph.Product) { p.TransA = true },
		func(p *graph.Product) { p.TransB = true },
		func(p *graph.Product) { p.TypeA = graph.BFloat16 },
		func(p *graph.Product) { p.TypeB = graph.BFloat16 },
		func(p *graph.Product) { p.TypeC = graph.BFloat16 },
		func(p *graph.Product) { p.Beta = 1 },
		func(p *graph.Product) { p.LDA = 8 },
		func(p *graph.Product) { p.LDB = 8 },
		func(p *graph.Product) { p.LDC = 8 },
		func(p *graph.Product) { p.LDFrom = 8 },
		func(p *graph.Product) { p.A = 8 },
		func(p *graph.Product) { p.B = 8 },
		func(p *graph.Product) { p.C = 8 },
		func(p *graph.Product) { p.From = 8 },
	} {
		key := product(change)
		if other, ok := seen[key]; ok {
			t.Errorf("changes %d and %d give the same key, %s", i, other, key)
		}
		seen[key] = i
	}
}

// TestChoices: choices are found again by later processes of this user, separately for each
// machine, if they are among the algorithms that a product may use; an invalid file is named in the
// error.
func TestChoices(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	cached := func(machine string, find algorithm, list ...algorithm) algorithm {
		got, err := (&tuner{machine: machine}).cached("product", list, func() (algorithm, error) { return find, nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	one, two, three := algorithm{1, 5}, algorithm{2, 6}, algorithm{1 << 63, 3}
	for i, c := range []struct {
		machine     string
		find, want  algorithm
		alternative []algorithm
	}{
		{"a", one, one, []algorithm{one, two, three}},
		{"a", two, one, []algorithm{one, two, three}},
		{"b", three, three, []algorithm{one, two, three}},
		{"a", three, one, []algorithm{one, three}},
		{"a", two, two, []algorithm{two, three}}, // the order of additions has changed
		{"a", three, two, []algorithm{one, two, three}},
	} {
		if got := cached(c.machine, c.find, c.alternative...); got != c.want {
			t.Errorf("choice %d, on machine %s, is %v, want %v", i, c.machine, got, c.want)
		}
	}
	if _, err := (&tuner{machine: "c"}).cached("product", nil, func() (algorithm, error) { return one, errors.New("no time") }); err == nil {
		t.Error("an error of timing is lost")
	}
	path := filepath.Join(t.TempDir(), "products.json")
	for _, text := range []string{"{", `{"a": {"product": "12"}}`, `{"a": {"product": "xyz"}}`} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := readChoices(path); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("a file of %s gives %v", text, err)
		}
	}
}

// TestTunedBits: all algorithms that a product may use give the same bits as its first one, and
// products use what was chosen for them before.
func TestTunedBits(t *testing.T) {
	d := open(t) // skips
	if d.capability != 90 {
		t.Skipf("compute capability %d: algorithms are taken as the library proposes them", d.capability)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	several := 0
	for _, c := range []struct {
		op   string
		dims graph.Dims
	}{
		{"linear", graph.Dims{"B": 1, "T": 4096, "M": 1024, "K": 1536}},
		{"linear", graph.Dims{"B": 1, "T": 1000, "M": 200, "K": 8192}},
		{"linear_dx", graph.Dims{"B": 1, "T": 4096, "M": 1536, "K": 1024}},
		{"linear_dw", graph.Dims{"B": 1, "T": 8192, "M": 1024, "K": 768}},
		{"linear_dw", graph.Dims{"B": 1, "T": 16384, "M": 128, "K": 768}}, // with split-K
	} {
		r := resolve(t, c.op, c.dims)
		plain := runOnNoise(t, d, r)
		tuned := open(t)
		tuned.TuneProducts()
		tuned.tuner.least = 0
		for range 2 {
			if got := runOnNoise(t, tuned, r); !slices.Equal(got, plain) {
				t.Errorf("%s %v: other bits tuned", c.op, c.dims)
			}
		}
		l, err := loadCall(tuned, r, precisions[1], 0)
		if err != nil {
			t.Fatal(err)
		}
		list, err := l.steps[0][0].(*product).alike()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 1 {
			several++
		}
		for _, a := range list {
			if got := runOnNoise(t, tuned, r, a); !slices.Equal(got, plain) {
				t.Errorf("%s %v: %v makes other bits than the first algorithm", c.op, c.dims, a)
			}
		}
		if timed, known, took := tuned.Tuned(); len(list) > 1 && (timed != 1 || known == 0) {
			t.Errorf("%s %v: %d algorithms, timed %d times in %v, %d known", c.op, c.dims, len(list), timed, took, known)
		}
		t.Logf("%s %v: %d algorithms", c.op, c.dims, len(list))
		l.release()
	}
	if several < 3 {
		t.Errorf("%d products only have several algorithms", several)
	}
}

// resolve is a case of linear or of one of its backward ops.
func resolve(t *testing.T, op string, dims graph.Dims) *graph.Resolved {
	t.Helper()
	for _, r := range benchCalls(t, graph.Case{Name: op, Spec: linear.Spec(), Dims: dims}) {
		if r.Spec.Name == op {
			return r
		}
	}
	t.Fatalf("no %s", op)
	return nil
}

// runOnNoise is a product's result for random inputs, with the given algorithm or the one that it
// has chosen.
func runOnNoise(t *testing.T, d *Device, r *graph.Resolved, a ...algorithm) []float32 {
	t.Helper()
	l, err := loadCall(d, r, precisions[1], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	noise := rand.New(rand.NewPCG(1, 2))
	staging := unsafe.Slice((*uint16)(l.inputs), 2*l.plan.Sizes[graph.Inputs])
	for i := range staging {
		staging[i] = 0x3f80 | uint16(noise.Uint32())&0x807f // magnitudes in [1, 2), of either sign
	}
	times := make([]time.Duration, 1)
	if len(a) > 0 {
		l.steps[0][0].(*product).algorithm = a[0]
	}
	if err := l.RunTimed(times); err != nil { // not as captured, with the previous algorithm
		t.Fatal(err)
	}
	out := make([]float32, r.Out[0].Shape.Size())
	if err := l.ReadSlot(l.out[0], out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestShortest: another algorithm than the library's first is chosen if its median is smaller by
// more than noise.
func TestShortest(t *testing.T) {
	for i, c := range []struct {
		times [][]float32
		want  int
	}{
		{[][]float32{{3, 1, 2}}, 0},
		{[][]float32{{100, 100, 100}, {99, 99, 99}}, 0},
		{[][]float32{{100, 100, 100}, {97, 97, 200}, {96, 96.5, 1000}}, 2},
		{[][]float32{{100, 100, 100}, {1, 100, 100}, {98, 98.5, 98}, {97, 97, 97}}, 3},
	} {
		if got := shortest(c.times); got != c.want {
			t.Errorf("case %d: %d, want %d", i, got, c.want)
		}
	}
}
