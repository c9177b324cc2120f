package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

// Format is a layout of exported models.
type Format string

// FormatSafetensors is the project's own: model.safetensors under the run's parameter names, config.json, and the
// tokenizer's files.
const FormatSafetensors Format = "safetensors"

const configFile = "config.json"

// ExportOptions says what Export writes.
type ExportOptions struct {
	Format Format
	DType  safetensors.DType // of the parameters
	Config []byte            // config.json
	Files  map[string][]byte // further files by name, such as the tokenizer's
}

// Validate refuses what Export cannot write.
func (o ExportOptions) Validate() error {
	if o.Format != FormatSafetensors {
		return fmt.Errorf("format %q is not supported; use %q", o.Format, FormatSafetensors)
	}
	if o.DType != safetensors.F32 {
		return fmt.Errorf("dtype %q is not supported for format %s; use %s", o.DType, o.Format, safetensors.F32)
	}
	if !json.Valid(o.Config) {
		return fmt.Errorf("%s is not valid JSON", configFile)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if !isFileName(name) || name == modelFile || name == configFile {
			return fmt.Errorf("file %q: the name is not allowed in an export", name)
		}
	}
	return nil
}

// Export writes c's model into the folder outDir, which must be empty or not exist. The folder appears whole or not at
// all.
func Export(c *Checkpoint, outDir string, o ExportOptions) error {
	if err := export(osFS{}, c, outDir, o); err != nil {
		return fmt.Errorf("export to %s: %w", outDir, err)
	}
	return nil
}

func export(fs fileSystem, c *Checkpoint, outDir string, o ExportOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	// Absolute, so that "." has a parent and a name.
	out, err := filepath.Abs(outDir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(out)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case len(entries) > 0:
		return fmt.Errorf("the folder is not empty (it holds %s); choose another or empty it", entries[0].Name())
	}
	parent := filepath.Dir(out)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return err
	}
	// The process's number keeps two exports apart. A folder of that name is left from a killed one.
	temp := filepath.Join(parent, fmt.Sprintf(".%s.exporting-%d", filepath.Base(out), os.Getpid()))
	if err := fs.RemoveAll(temp); err != nil {
		return err
	}
	err = fillExport(fs, c, temp, o)
	if err == nil && exists {
		err = os.Remove(out) // fails, as it should, when the folder has been filled meanwhile
	}
	if err == nil {
		err = fs.Rename(temp, out)
	}
	if err != nil {
		return discard(fs, temp, err)
	}
	return fs.SyncDir(parent)
}

// fillExport writes the exported files into the new folder dir, durably.
func fillExport(fs fileSystem, c *Checkpoint, dir string, o ExportOptions) error {
	if err := fs.Mkdir(dir); err != nil {
		return err
	}
	model, err := c.open(partModel)
	if err != nil {
		return err
	}
	defer model.close()
	if _, err := writeFile(fs, dir, modelFile, model.copyTo); err != nil {
		return err
	}
	if _, err := writeBytes(fs, dir, configFile, o.Config); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if _, err := writeBytes(fs, dir, name, o.Files[name]); err != nil {
			return err
		}
	}
	return fs.SyncDir(dir)
}

// copyTo writes the part's tensors into one safetensors file.
func (p *openPart) copyTo(w io.Writer) error {
	var entries []safetensors.Entry
	for _, f := range p.files {
		entries = append(entries, f.Entries()...)
	}
	// Transformers loads only files that name a framework here.
	sw, err := safetensors.NewWriter(w, entries, map[string]string{"format": "pt"})
	if err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for _, e := range sw.Entries() {
		raw, err := p.in[e.Name].Raw(e.Name)
		if err != nil {
			return err
		}
		for left := raw.Size(); left > 0; {
			b := buf[:min(left, chunk)]
			if _, err := io.ReadFull(raw, b); err != nil {
				return fmt.Errorf("%s: tensor %q: %w", p.dir, e.Name, err)
			}
			if err := sw.Write(e.Name, b); err != nil {
				return err
			}
			left -= int64(len(b))
		}
	}
	return sw.Finish()
}

// Exported is a model as Export wrote it.
type Exported struct {
	Config  []byte
	Tensors []Tensor // in the order of their names
}

// LoadExport reads a folder that Export wrote in FormatSafetensors.
func LoadExport(dir string) (*Exported, error) {
	config, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return nil, err
	}
	f, err := safetensors.Open(filepath.Join(dir, modelFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x := &Exported{Config: config}
	for _, e := range f.Entries() {
		t := Tensor{Name: e.Name, Shape: e.Shape, Data: make([]float32, e.Bytes()/4)}
		if err := f.ReadFloat32(t.Name, t.Data); err != nil {
			return nil, err
		}
		x.Tensors = append(x.Tensors, t)
	}
	return x, nil
}
