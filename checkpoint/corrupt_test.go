package checkpoint

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

var checkpointFiles = []string{modelFile, optimizerFile, manifestFile, manifestSumFile}

// TestEveryFlippedBitIsFound flips one bit of every byte of every file.
func TestEveryFlippedBitIsFound(t *testing.T) {
	info := save(t, lock(t, t.TempDir()), 1, 1)
	for _, name := range checkpointFiles {
		path := filepath.Join(info.Dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for offset := range good {
			flip(t, path, offset, uint(offset*5%8))
			wantError(t, Verify(info.Dir), name)
			if t.Failed() {
				t.Fatalf("%s, offset %d", name, offset)
			}
			if err := os.WriteFile(path, good, 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Verify(info.Dir); err != nil {
		t.Fatalf("after all was put back: %v", err)
	}
}

func TestDamageFallsBack(t *testing.T) {
	truncate := func(left func(size int64) int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, left(info.Size())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, damage := range []struct {
		name string
		do   func(t *testing.T, path string)
	}{
		{"flip", func(t *testing.T, path string) { flip(t, path, 40, 3) }},
		{"empty", truncate(func(int64) int64 { return 0 })},
		{"half", truncate(func(n int64) int64 { return n / 2 })},
		{"last byte", truncate(func(n int64) int64 { return n - 1 })},
		{"longer", func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
		}},
		{"removed", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o777); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		for _, name := range checkpointFiles {
			t.Run(damage.name+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				r := lock(t, dir)
				first := save(t, r, 1, 1)
				second := save(t, r, 2, 2)
				third := save(t, r, 3, 3)
				damage.do(t, filepath.Join(second.Dir, name))
				damage.do(t, filepath.Join(third.Dir, name))

				wantError(t, Verify(third.Dir), third.Dir, name)
				c, skipped, err := Newest(dir)
				if err != nil {
					t.Fatal(err)
				}
				if c.Dir != first.Dir {
					t.Errorf("newest is %s, want %s", c.Dir, first.Dir)
				}
				holds(t, c, 1)
				if len(skipped) != 2 || skipped[0].Dir != third.Dir || skipped[1].Dir != second.Dir {
					t.Fatalf("skipped %+v, want steps 3 and 2", skipped)
				}
				wantError(t, skipped[0].Err, filepath.Join(third.Dir, name))
				wantError(t, skipped[1].Err, filepath.Join(second.Dir, name))

				damage.do(t, filepath.Join(first.Dir, name))
				_, skipped, err = Newest(dir)
				if !errors.Is(err, ErrNoCheckpoint) || len(skipped) != 3 {
					t.Errorf("all damaged: skipped %d, error %v", len(skipped), err)
				}
			})
		}
	}
}

// TestForgedManifest: contents that a checksum cannot catch, because it was computed for them.
func TestForgedManifest(t *testing.T) {
	dir := t.TempDir()
	info := save(t, lock(t, dir), 1, 1)
	m, err := readManifest(nil, info.Dir)
	if err != nil {
		t.Fatal(err)
	}
	sum := m.RecipeSHA256
	for name, test := range map[string]struct {
		change func(*manifest)
		want   string
	}{
		"other format":    {func(m *manifest) { m.Format = "x" }, `format is "x"`},
		"later version":   {func(m *manifest) { m.FormatVersion = 3 }, "format_version is 3, this program reads 1 and 2"},
		"pieces untold":   {func(m *manifest) { m.FormatVersion = 2 }, "0 tensors lie in pieces, which is not version 2"},
		"pieces too soon": {func(m *manifest) { m.Pieces = map[string][]int{"a": {1}} }, "1 tensors lie in pieces, which is not version 1"},
		"negative":        {func(m *manifest) { m.Tokens = -1 }, "tokens: -1 is negative"},
		"outside":         {func(m *manifest) { m.Files[0].Name = "../model.safetensors" }, "not a file name"},
		"absolute":        {func(m *manifest) { m.Files[0].Name = "/etc/passwd" }, "not a file name"},
		"dot":             {func(m *manifest) { m.Files[0].Name = "." }, "not a file name"},
		"itself":          {func(m *manifest) { m.Files[0].Name = manifestFile }, "not a file name"},
		"twice":           {func(m *manifest) { m.Files[1].Name = m.Files[0].Name }, "listed twice"},
		"unknown part":    {func(m *manifest) { m.Files[0].Part = "x" }, `unknown part "x"`},
		"no optimizer":    {func(m *manifest) { m.Files = m.Files[:1] }, "none holds the optimizer"},
		"negative size":   {func(m *manifest) { m.Files[0].Size = -1 }, "negative size"},
		"bad sum":         {func(m *manifest) { m.Files[0].SHA256 = "00" }, "SHA-256"},
		"wrong sum":       {func(m *manifest) { m.Files[0].SHA256 = sum }, "model.safetensors: SHA-256 is"},
		"not safetensors": {func(m *manifest) { m.Files[0] = record(t, info.Dir, manifestSumFile) }, "not a file name"},
		"not a tensor file": {func(m *manifest) {
			if err := os.WriteFile(filepath.Join(info.Dir, "x"), []byte("hello, world"), 0o666); err != nil {
				t.Fatal(err)
			}
			m.Files[0] = record(t, info.Dir, "x")
		}, "not a safetensors file"},
		"not float32": {func(m *manifest) {
			f, err := writeFile(noSyncFS{}, info.Dir, "ints", func(w io.Writer) error {
				sw, err := safetensors.NewWriter(w, []safetensors.Entry{{Name: "a", DType: safetensors.I32, Shape: []int{0}}}, nil)
				if err != nil {
					return err
				}
				return sw.Finish()
			})
			if err != nil {
				t.Fatal(err)
			}
			f.Part = partModel
			m.Files[0] = f
		}, info.Dir + `: model tensor "a": dtype is I32, want F32`},
		"pieces nowhere": {func(m *manifest) { m.FormatVersion, m.Pieces = 2, map[string][]int{"b": {1}, "a": {1}} }, info.Dir + `: tensor "a": its pieces are in no file`},
	} {
		t.Run(name, func(t *testing.T) {
			forged := m
			forged.Files = append([]fileRecord{}, m.Files...)
			test.change(&forged)
			writeManifest(t, info.Dir, forged)
			wantError(t, Verify(info.Dir), test.want)
		})
	}
}

// TestPartInTwoFiles: a reader of version 1 accepts parts that a later writer spreads over several
// files, and rejects a tensor that is in two of them.
func TestPartInTwoFiles(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	model, optimizer := tensors(1)
	first, err := r.Save(state(1), model[:1], optimizer)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := r.Save(state(2), model[1:], optimizer)
	if err != nil {
		t.Fatal(err)
	}
	const second = "model-2.safetensors"
	if err := os.Rename(filepath.Join(rest.Dir, modelFile), filepath.Join(first.Dir, second)); err != nil {
		t.Fatal(err)
	}
	m, err := readManifest(nil, first.Dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Files = append(m.Files, record(t, first.Dir, second))
	writeManifest(t, first.Dir, m)
	c, err := Load(first.Dir)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, c, 1)

	if err := os.Link(filepath.Join(first.Dir, second), filepath.Join(first.Dir, "model-3.safetensors")); err != nil {
		t.Fatal(err)
	}
	m.Files = append(m.Files, record(t, first.Dir, "model-3.safetensors"))
	writeManifest(t, first.Dir, m)
	wantError(t, Verify(first.Dir), "model-2.safetensors too")
}

// record returns the correct record of a file, as one of the model's.
func record(t *testing.T, dir, name string) fileRecord {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return fileRecord{Name: name, Part: partModel, Size: int64(len(b)), SHA256: RecipeSHA256(b)}
}

func writeManifest(t *testing.T, dir string, m manifest) {
	t.Helper()
	text, sumLine, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestFile), text, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestSumFile), []byte(sumLine), 0o666); err != nil {
		t.Fatal(err)
	}
}
