package verify

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/graph"
)

// builtIn is a fixture with one sublayer of each of Samba's mixers.
//
//go:embed testdata/mamba_swa_mlp.safetensors
var builtIn []byte

// SelfTest checks a device that was opened for a run.dtype with a fixture that the binary
// holds.
func SelfTest(dev graph.Device, dtype string) error {
	const name = "built-in fixture"
	file, err := safetensors.NewFile(bytes.NewReader(builtIn), int64(len(builtIn)), name)
	if err != nil {
		return err
	}
	f, err := newFixture(file, name)
	if err != nil {
		return err
	}
	r := Report{File: name}
	tol, mixed := tolerances(dtype)
	if err := errors.Join(r.run(dev, f, mixed, tol), r.finite()); err != nil {
		return err
	}
	if !r.passes(tol) {
		return fmt.Errorf("wrong results: errors of logits %.1e, loss %.1e, gradients %.1e, steps %.1e, parameters %.1e",
			r.Logits, r.Loss, r.Gradients, r.Steps, r.Parameters)
	}
	return nil
}
