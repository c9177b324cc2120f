package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestSeveralFiles: a part that exceeds the maximum file size is split into several files, which
// are read and verified like a single one.
func TestSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	r.maxFile = 40
	info := save(t, r, 1, 1)
	c := newest(t, dir)
	holds(t, c, 1)
	var names []string
	for _, f := range c.files {
		names = append(names, f.Name)
	}
	if len(names) < 5 || !slices.Contains(names, "model-00001-of-00003.safetensors") {
		t.Errorf("files %q", names)
	}
	for _, name := range names {
		path := filepath.Join(info.Dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flip(t, path, len(good)-1, 2)
		wantError(t, Verify(info.Dir), name)
		if err := os.WriteFile(path, good, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := Verify(info.Dir); err != nil {
		t.Error(err)
	}
}

func TestShardTensors(t *testing.T) {
	tensor := func(n int) Tensor { return Tensor{Data: make([]float32, n)} }
	for _, c := range []struct{ sizes, want []int }{
		{nil, []int{0}}, {[]int{1, 2}, []int{2}}, {[]int{5, 5, 1}, []int{2, 1}}, {[]int{50, 1, 60}, []int{1, 1, 1}}, {[]int{0, 10, 0, 1}, []int{3, 1}},
	} {
		var list []Tensor
		for _, n := range c.sizes {
			list = append(list, tensor(n))
		}
		var got []int
		for _, shard := range shardTensors(list, 40) {
			got = append(got, len(shard))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("sizes %v: %v tensors a file, want %v", c.sizes, got, c.want)
		}
	}
}
