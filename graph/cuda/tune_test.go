//go:build linux

package cuda

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/internal/optest"
)

// TestProductKey: products that differ in anything that an algorithm depends on are not
// taken for the same.
func TestProductKey(t *testing.T) {
	product := func(change func(p *graph.Product)) string {
		p := &graph.Product{M: 1, N: 2, K: 3, A: 256, B: 512, C: 1024, From: 1024, LDA: 3, LDB: 3, LDC: 2, LDFrom: 2}
		change(p)
		return productKey(p, false)
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

// TestChoices: what was chosen is found again by processes of this user, machine by
// machine, and a file that is none is named.
func TestChoices(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	cached := func(machine, answer string) string {
		d := &Device{tuner: &tuner{machine: machine}}
		got, err := d.cached("product", func() (string, error) { return answer, nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for i, c := range []struct{ machine, found, want string }{
		{"a", "1", "1"},
		{"a", "2", "1"},
		{"b", "3", "3"},
		{"a", "4", "1"},
	} {
		if got := cached(c.machine, c.found); got != c.want {
			t.Errorf("choice %d, on machine %s, is %s, want %s", i, c.machine, got, c.want)
		}
	}
	d := &Device{tuner: &tuner{machine: "c"}}
	if _, err := d.cached("product", func() (string, error) { return "", errors.New("no time") }); err == nil {
		t.Error("an error of timing is lost")
	}
	path := filepath.Join(t.TempDir(), "products-0.json")
	if err := os.WriteFile(path, []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readChoices(path); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a broken file gives %v", err)
	}
}

// TestTunedProducts: tuned products are right, and a run's file decides on the next device
// of the kind.
func TestTunedProducts(t *testing.T) {
	open(t) // skips
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path := filepath.Join(t.TempDir(), "products-0.json")
	c := graph.Case{Name: "tuned", Spec: linear.Spec(), Dims: graph.Dims{"B": 1, "T": 300, "M": 512, "K": 256}}
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		t.Fatal(err)
	}
	call := optest.Call{Resolved: r, In: optest.Draw(c, r)}
	var files [2]string
	for i := range files {
		d := open(t)
		others, err := d.TuneProducts(path)
		if err != nil || len(others) > 0 {
			t.Fatalf("others %v, %v", others, err)
		}
		for _, p := range precisions {
			check(t, d, call, p, 0)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = string(text)
		t.Setenv("XDG_CACHE_HOME", t.TempDir()) // nothing is known there
	}
	if files[0] != files[1] || strings.Count(files[0], "512x256") != len(precisions) {
		t.Errorf("the run's choices are\n%s\nand on the next device\n%s", files[0], files[1])
	}
	other := strings.Replace(files[0], "cublasLt", "cublasLt of old", 1)
	if err := os.WriteFile(path, []byte(other), 0o666); err != nil {
		t.Fatal(err)
	}
	others, err := open(t).TuneProducts(path)
	if err != nil || len(others) != 1 || !strings.Contains(others[0], "of old") {
		t.Errorf("others are %v, %v", others, err)
	}
}

// TestShortest: another algorithm than the library's first is taken where its median is less by
// more than noise.
func TestShortest(t *testing.T) {
	for i, c := range []struct {
		times [][]float32
		want  int
	}{
		{[][]float32{{3, 1, 2}}, 0},
		{[][]float32{{100, 100, 100}, {99, 99, 99}}, 0},
		{[][]float32{{100, 100, 100}, {97, 97, 200}, {96, 96.5, 1000}}, 2},
		{[][]float32{{100, 100, 100}, {1, 100, 100}, nil, {97, 97, 97}}, 3},
	} {
		if got := shortest(c.times); got != c.want {
			t.Errorf("case %d: %d, want %d", i, got, c.want)
		}
	}
}
