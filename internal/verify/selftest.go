package verify

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/recipes"
)

// builtIn is a fixture with one sublayer of each of Samba's mixers.
//
//go:embed testdata/mamba_swa_mlp.safetensors
var builtIn []byte

// SelfTest checks a device that was opened for run with a fixture embedded in the binary.
func SelfTest(dev graph.Device, run recipes.Run) (Report, error) {
	r := Report{File: "built-in fixture"}
	file, err := safetensors.NewFile(bytes.NewReader(builtIn), int64(len(builtIn)), r.File)
	if err != nil {
		return r, err
	}
	f, err := newFixture(file, r.File)
	if err != nil {
		return r, err
	}
	if err := errors.Join(r.run(dev, f, run), r.finite()); err != nil {
		return r, err
	}
	if r.Beyond = r.beyond(tolerances(run.DType)); r.Beyond != "" {
		return r, fmt.Errorf("wrong results: %s", r.Beyond)
	}
	r.Pass = true
	return r, nil
}
