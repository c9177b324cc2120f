package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// olderCheckpoint ends the help of commands that use a run's newest good checkpoint.
const olderCheckpoint = "\n\nRUN_DIR may also be the folder of an older checkpoint, as listed by `checkpoint ls`."

// modelFlags say where a trained model computes.
type modelFlags struct {
	device, dtype string
	threads       int
}

func (f *modelFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.device, "device", "", "device to compute on: "+strings.Join(recipes.Devices, ", ")+" (default: as trained)")
	c.Flags().StringVar(&f.dtype, "dtype", "", "precision: "+strings.Join(recipes.DTypes, ", ")+" (default: as trained)")
	c.Flags().IntVar(&f.threads, "threads", 0, "number of CPU workers; 0 means one per core")
	offer(c, "device", recipes.Devices)
	offer(c, "dtype", recipes.DTypes)
}

// check rejects impossible flag values, whatever the run.
func (f *modelFlags) check() error {
	r := recipes.Defaults().Run
	r.Threads, r.Device = f.threads, recipes.Auto
	if f.device != "" {
		r.Device = f.device
	}
	if f.dtype != "" {
		r.DType = f.dtype
	}
	if err := r.Validate(); err != nil {
		return &usageError{flagNames(err)}
	}
	return nil
}

// load loads a run's newest good checkpoint, or the checkpoint in folder run. The model must be
// closed afterwards.
func (f *modelFlags) load(a *app, run string) (*train.Model, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	sets := []string{fmt.Sprintf("run.threads=%d", f.threads)}
	if f.device != "" {
		sets = append(sets, "run.device="+f.device)
	}
	if f.dtype != "" {
		sets = append(sets, "run.dtype="+f.dtype)
	}
	return train.LoadModel(run, log, sets...)
}
