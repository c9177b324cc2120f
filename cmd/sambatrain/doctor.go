package main

import (
	"errors"
	"fmt"
	"io"
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
	var flags processFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can compute on, and test it",
		Long: `Print which process of a run this one would be and what says so, the devices that this
machine has for training, and the libraries that were found for them, and check each device
with a small model whose results are known. Exit status 1 if a device computes wrongly, or if
what says which process this is makes no sense; a machine without a GPU is healthy.`,
		Example: "  sambatrain doctor",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			fmt.Fprintf(out, "sambatrain %s, %s/%s\n", version(), runtime.GOOS, runtime.GOARCH)
			place, placeErr := flags.place()
			var wrong *usageError
			if errors.As(placeErr, &wrong) {
				return placeErr
			}
			if placeErr != nil {
				fmt.Fprintf(out, "process: %v\n", placeErr)
			} else {
				fmt.Fprintf(out, "process: %v\n", place)
			}
			for _, line := range dist.Libraries() {
				fmt.Fprintln(out, line)
			}
			fmt.Fprintln(out)
			sound, err := testDevices(out)
			if err != nil {
				return err
			}
			if !sound {
				return fmt.Errorf("a device computes wrongly: %w", errReported)
			}
			if placeErr != nil {
				return errors.Join(placeErr, errReported)
			}
			return nil
		},
	}
	flags.add(c)
	return c
}

// testDevices prints what each device is and whether it is sound, and reports whether all
// are.
func testDevices(out io.Writer) (sound bool, err error) {
	dev, err := cpu.New(0)
	if err != nil {
		return false, err
	}
	sound = selfTest(out, dev, recipes.Float32)
	dev.Close()
	gpu, err := cuda.New(0)
	if err != nil {
		fmt.Fprintf(out, "no GPU: %v\n", err)
		return sound, nil
	}
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
	return sound, nil
}

// selfTest prints one line on a device and reports whether it is sound.
func selfTest(w io.Writer, dev graph.Device, dtype string) bool {
	started := time.Now()
	run := recipes.Defaults().Run
	run.Device, run.DType = recipes.Auto, dtype
	r, err := verify.SelfTest(dev, run)
	if err != nil {
		fmt.Fprintf(w, "%s, %s: FAILED: %v\n", dev.Name(), dtype, err)
		return false
	}
	if run.Mixed() {
		dtype += fmt.Sprintf(", float32 in %d of %d sublayers", r.Float32Sublayers, r.Sublayers)
	}
	fmt.Fprintf(w, "%s, %s: sound (%.1f s)\n", dev.Name(), dtype, time.Since(started).Seconds())
	return true
}
