package verify

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

// content is a fixture in memory, which can be modified and written elsewhere.
type content struct {
	metadata map[string]string
	entries  []safetensors.Entry
	data     map[string][]byte
}

func read(t *testing.T, name string) *content {
	t.Helper()
	f, err := safetensors.Open(filepath.Join("testdata", name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &content{metadata: f.Metadata(), entries: f.Entries(), data: map[string][]byte{}}
	for _, e := range c.entries {
		raw, err := f.Raw(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		if c.data[e.Name], err = io.ReadAll(raw); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *content) write(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	w, err := safetensors.NewWriter(&out, c.entries, c.metadata)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range w.Entries() {
		if err := w.Write(e.Name, c.data[e.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "changed.safetensors")
	if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func (c *content) index(t *testing.T, name string) int {
	t.Helper()
	i := slices.IndexFunc(c.entries, func(e safetensors.Entry) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("the fixture has no %s", name)
	}
	return i
}

// floats modifies a float32 tensor in place.
func (c *content) floats(t *testing.T, name string, change func(x []float32)) {
	t.Helper()
	c.index(t, name)
	x := make([]float32, len(c.data[name])/4)
	if _, err := binary.Decode(c.data[name], binary.LittleEndian, x); err != nil {
		t.Fatal(err)
	}
	change(x)
	if _, err := binary.Encode(c.data[name], binary.LittleEndian, x); err != nil {
		t.Fatal(err)
	}
}

// bump changes the tensor's first element by a fraction of its largest one.
func (c *content) bump(t *testing.T, name string, part float64) {
	t.Helper()
	c.floats(t, name, func(x []float32) {
		top := 0.0
		for _, v := range x {
			top = math.Max(top, math.Abs(float64(v)))
		}
		x[0] += float32(part * top)
	})
}

func (c *content) remove(t *testing.T, name string) {
	t.Helper()
	i := c.index(t, name)
	c.entries = slices.Delete(c.entries, i, i+1)
}

// set replaces a tensor, or adds one.
func (c *content) set(e safetensors.Entry, data []byte) {
	c.entries = slices.DeleteFunc(c.entries, func(old safetensors.Entry) bool { return old.Name == e.Name })
	c.entries, c.data[e.Name] = append(c.entries, e), data
}

// edit changes a key of a metadata value that is a JSON object; nil deletes it.
func (c *content) edit(t *testing.T, field, key string, value any) {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(c.metadata[field]), &m); err != nil {
		t.Fatal(err)
	}
	if value == nil {
		delete(m, key)
	} else {
		m[key] = value
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	c.metadata[field] = string(text)
}
