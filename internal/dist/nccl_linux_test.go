package dist

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestNCCLCalls makes every call to our own C library, which checks what arrives: above all the id
// of 128 bytes, which is passed by value.
func TestNCCLCalls(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	dir := t.TempDir()
	library := filepath.Join(dir, "lib", "libnccl.so.2")
	if out, err := exec.Command("sh", "-c", "mkdir "+filepath.Dir(library)+" && "+gcc+" -O2 -shared -fPIC -o "+library+" testdata/nccl.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n, err := openNCCL(library)
	if err != nil {
		t.Fatal(err)
	}
	n.rank, n.size = 3, 5
	id, err := n.newID()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.init(id); err != nil {
		t.Fatal(err)
	}
	n.OnStream(0x1234)
	from := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, c := range []struct {
		name string
		call func(from, to graph.Vector) error
		n    int // elements that arrive
	}{
		{"all-reduce", n.AllReduce, 10},
		{"reduce-scatter", func(from, to graph.Vector) error { return n.ReduceScatter(from, to.Part(0, 2)) }, 2},
		{"all-gather", func(from, to graph.Vector) error { return n.AllGather(from.Part(0, 2), to) }, 2},
		{"broadcast", func(from, _ graph.Vector) error { return n.Broadcast(from, 2) }, 0},
	} {
		to := make([]float32, len(from))
		if err := c.call(graph.VectorOf(from), graph.VectorOf(to)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if want := append(slices.Clone(from[:c.n]), make([]float32, len(from)-c.n)...); !slices.Equal(to, want) {
			t.Errorf("%s: %v, want %v", c.name, to, want)
		}
	}
	if err := n.Broadcast(graph.VectorOf(from), 1); err == nil || err.Error() != "NCCL: ncclBroadcast: invalid argument" {
		t.Errorf("an error of the library is %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
