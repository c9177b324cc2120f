package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/verify"
	"github.com/sambatrain/sambatrain/recipes"
)

func newDoctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can compute on, and test it",
		Long: `Print the devices that this machine has for training, and the libraries that were
found for them, and check each device with a small model whose results are known.
Exit status 1 if a device computes wrongly; a machine without a GPU is healthy.`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			fmt.Fprintf(out, "sambatrain %s, %s/%s\n", version(), runtime.GOOS, runtime.GOARCH)
			place, err := dist.Detect(dist.NoFlags(), os.LookupEnv, cuda.Count())
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "process: %v\n", place)
			for _, line := range dist.Libraries() {
				fmt.Fprintln(out, line)
			}
			fmt.Fprintln(out)
			dev, err := cpu.New(0)
			if err != nil {
				return err
			}
			sound := selfTest(out, dev, recipes.Float32)
			dev.Close()
			gpu, err := cuda.New(0)
			if err != nil {
				fmt.Fprintf(out, "no GPU: %v\n", err)
			} else {
				for _, line := range gpu.Libraries() {
					fmt.Fprintln(out, line)
				}
				for _, dtype := range []string{recipes.Float32, recipes.BFloat16, recipes.TF32} {
					if dtype == recipes.TF32 {
						gpu.AllowTF32()
					}
					sound = selfTest(out, gpu, dtype) && sound
				}
				gpu.Close()
			}
			if !sound {
				return fmt.Errorf("a device computes wrongly: %w", errReported)
			}
			return nil
		},
	}
}

// selfTest prints one line on a device and reports whether it is sound.
func selfTest(w io.Writer, dev graph.Device, dtype string) bool {
	started := time.Now()
	if err := verify.SelfTest(dev, dtype); err != nil {
		fmt.Fprintf(w, "%s, %s: FAILED: %v\n", dev.Name(), dtype, err)
		return false
	}
	fmt.Fprintf(w, "%s, %s: sound (%.1f s)\n", dev.Name(), dtype, time.Since(started).Seconds())
	return true
}
