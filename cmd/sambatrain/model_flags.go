package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// modelFlags say where a trained model computes.
type modelFlags struct {
	device, dtype string
	threads       int
}

func (f *modelFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.device, "device", "", "where to compute: "+strings.Join(recipes.Devices, ", ")+" (default: as it was trained)")
	c.Flags().StringVar(&f.dtype, "dtype", "", "type of computation: "+strings.Join(recipes.DTypes, ", ")+" (default: as it was trained)")
	c.Flags().IntVar(&f.threads, "threads", 0, "number of CPU workers; 0 is one a core")
}

// load loads a run's newest good checkpoint. Close the model when done.
func (f *modelFlags) load(a *app, run string) (*train.Model, error) {
	if err := checkThreads(f.threads); err != nil {
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
