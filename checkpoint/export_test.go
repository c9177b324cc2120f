package checkpoint

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

func exportOptions() ExportOptions {
	return ExportOptions{
		Format: FormatSafetensors, DType: safetensors.F32, Config: []byte("{\"model_type\": \"samba\"}\n"),
		Files: map[string][]byte{"tokenizer.json": []byte("{}"), "a.model": {0, 1}},
	}
}

// source is a saved checkpoint with tensors of seed 1.
func source(t *testing.T) *Checkpoint {
	t.Helper()
	dir := t.TempDir()
	save(t, lock(t, dir), 1, 1)
	return newest(t, dir)
}

func exported(t *testing.T, dir string) {
	t.Helper()
	x, err := LoadExport(dir)
	if err != nil {
		t.Fatal(err)
	}
	model, _ := tensors(1)
	sameBits(t, x.Tensors, model)
	o := exportOptions()
	if !bytes.Equal(x.Config, o.Config) {
		t.Errorf("config is %q", x.Config)
	}
	for name, want := range o.Files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 {
		t.Errorf("the export holds %v", entries)
	}
}

func TestExport(t *testing.T) {
	c := source(t)
	parent := t.TempDir()
	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{filepath.Join(parent, "new"), empty, filepath.Join(parent, "deep", "er")} {
		if err := Export(c, out, exportOptions()); err != nil {
			t.Fatal(err)
		}
		exported(t, out)
	}
	f, err := safetensors.Open(filepath.Join(empty, modelFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Metadata()["format"] != "pt" {
		t.Errorf("metadata is %v", f.Metadata())
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("beside the exports lies something else: %v", entries)
	}
}

func TestExportRefuses(t *testing.T) {
	c := source(t)
	for name, test := range map[string]struct {
		change func(*ExportOptions)
		want   string
	}{
		"format":         {func(o *ExportOptions) { o.Format = "gguf" }, `format "gguf" is not supported`},
		"dtype":          {func(o *ExportOptions) { o.DType = safetensors.BF16 }, `dtype "BF16" is not supported`},
		"config":         {func(o *ExportOptions) { o.Config = []byte("{") }, "config.json is not valid JSON"},
		"no config":      {func(o *ExportOptions) { o.Config = nil }, "config.json is not valid JSON"},
		"model":          {func(o *ExportOptions) { o.Files = map[string][]byte{modelFile: nil} }, "model.safetensors"},
		"config file":    {func(o *ExportOptions) { o.Files = map[string][]byte{configFile: nil} }, "config.json"},
		"outside":        {func(o *ExportOptions) { o.Files = map[string][]byte{"../x": nil} }, "../x"},
		"empty name":     {func(o *ExportOptions) { o.Files = map[string][]byte{"": nil} }, "not allowed"},
		"in a subfolder": {func(o *ExportOptions) { o.Files = map[string][]byte{"a/b": nil} }, "a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			o := exportOptions()
			test.change(&o)
			wantError(t, Export(c, out, o), out, test.want)
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s exists", out)
			}
		})
	}
}

func TestExportRefusesAFullFolder(t *testing.T) {
	c := source(t)
	out := t.TempDir()
	path := filepath.Join(out, "precious")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	wantError(t, Export(c, out, exportOptions()), out, "not empty (it holds precious)")
	wantError(t, Export(c, path, exportOptions()), path)
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the folder holds %v", entries)
	}
}

// TestExportDiskFullAtEveryOperation: the folder is there whole or not at all.
func TestExportDiskFullAtEveryOperation(t *testing.T) {
	c := source(t)
	for at := 1; ; at++ {
		parent := t.TempDir()
		out := filepath.Join(parent, "out")
		fs := newFaultyFS(at, syscall.ENOSPC, false)
		err := export(fs, c, out, exportOptions())
		if !fs.hit() {
			if err != nil {
				t.Fatal(err)
			}
			exported(t, out)
			if n := len(fs.unsyncedFiles) + len(fs.unsyncedNames); n > 0 {
				t.Errorf("a power failure would lose %v %v", fs.unsyncedFiles, fs.unsyncedNames)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("operation %d: error is %v", at, err)
		}
		if _, err := os.Stat(out); err == nil {
			exported(t, out)
		}
		hidden, err := filepath.Glob(filepath.Join(parent, ".*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(hidden) > 0 {
			t.Errorf("operation %d: left over: %q", at, hidden)
		}
	}
}

func TestLoadExportRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	if err := Export(source(t), out, exportOptions()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(out, modelFile)
	if err := os.Truncate(path, 200); err != nil {
		t.Fatal(err)
	}
	_, err := LoadExport(out)
	wantError(t, err, path)
	if err := os.Remove(filepath.Join(out, configFile)); err != nil {
		t.Fatal(err)
	}
	_, err = LoadExport(out)
	wantError(t, err, configFile)
}
