package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/dylib"
	"github.com/sambatrain/sambatrain/internal/verify"
	"github.com/sambatrain/sambatrain/recipes"
)

func newDoctor() *cobra.Command {
	var flags processFlags
	var output outputForm
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine can compute on, and test it",
		Long: `Print the rank that this process would have and where it comes from, the devices of this
machine and the libraries found for them, and check each device with a small model whose
results are known. Exit status 1 if a device computes wrong results, or if the settings of
the rank are contradictory; a machine without a GPU is healthy.`,
		Example: "  sambatrain doctor\n  sambatrain doctor --output json",
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			d := checkup{build: thisBuild(), w: c.OutOrStdout()}
			if output == outputJSON {
				d.w = io.Discard
			}
			err := d.run(flags)
			if output == outputJSON && (err == nil || errors.Is(err, errReported)) {
				err = errors.Join(err, writeJSON(c.OutOrStdout(), d))
			}
			return err
		},
	}
	flags.add(c)
	outputFlag(c, &output)
	return c
}

// checkup is what doctor finds.
type checkup struct {
	build
	Process processPlace `json:"process"`
	// Libraries lists those that were found, or why not, one per line.
	Libraries []string `json:"libraries"`
	// NoGPU says why there is no GPU, if there is none.
	NoGPU string `json:"no_gpu,omitempty"`
	// Searched is where libraries were looked for, if one is missing.
	Searched string          `json:"searched,omitempty"`
	Tests    []checkedDevice `json:"tests"`

	w io.Writer // gets a line as soon as something is found
}

// processPlace says which process of a run this one would be, or why that makes no sense.
type processPlace struct {
	Rank      int    `json:"rank"`
	WorldSize int    `json:"world_size"`
	LocalRank int    `json:"local_rank"`
	Source    string `json:"source,omitempty"`
	Error     string `json:"error,omitempty"`
}

// checkedDevice is the test of a device with one number format.
type checkedDevice struct {
	Device  string  `json:"device"`
	DType   string  `json:"dtype"`
	Correct bool    `json:"correct"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

// run checks everything. It returns errReported if the report contains the error.
func (d *checkup) run(flags processFlags) error {
	fmt.Fprintf(d.w, "sambatrain %s, %s/%s\n", version(), runtime.GOOS, runtime.GOARCH)
	place, placeErr := flags.place()
	var wrong *usageError
	if errors.As(placeErr, &wrong) {
		return placeErr
	}
	if placeErr != nil {
		fmt.Fprintf(d.w, "process: %v\n", placeErr)
		d.Process.Error = placeErr.Error()
	} else {
		fmt.Fprintf(d.w, "process: %v\n", place)
		d.Process = processPlace{Rank: place.Rank, WorldSize: place.Size, LocalRank: place.LocalRank, Source: place.Source}
	}
	for _, l := range dist.Libraries() {
		if l.Err != nil {
			l.Version = d.brief(l.Err)
		}
		d.found([]string{l.Use + ": " + l.Version})
	}
	fmt.Fprintln(d.w)
	correct, err := d.testDevices()
	if err != nil {
		return err
	}
	if d.Searched != "" {
		fmt.Fprintf(d.w, "\nLibraries were looked for %s. Install a missing one, or name its folder in LD_LIBRARY_PATH.\n", d.Searched)
	}
	if !correct {
		return fmt.Errorf("a device computes wrong results: %w", errReported)
	}
	if placeErr != nil {
		return errors.Join(placeErr, errReported)
	}
	return nil
}

// brief returns an error without the places where a library was looked for, which are reported once
// for all.
func (d *checkup) brief(err error) string {
	var missing *dylib.Missing
	if !errors.As(err, &missing) {
		return err.Error()
	}
	d.Searched = missing.Searched
	return strings.TrimSuffix(err.Error(), missing.Where())
}

// found reports libraries.
func (d *checkup) found(lines []string) {
	for _, line := range lines {
		fmt.Fprintln(d.w, line)
	}
	d.Libraries = append(d.Libraries, lines...)
}

// testDevices reports what each device is and whether its results are correct, and returns whether
// all are.
func (d *checkup) testDevices() (correct bool, err error) {
	dev, err := cpu.New(0)
	if err != nil {
		return false, err
	}
	correct = d.test(dev, recipes.Float32)
	dev.Close()
	gpu, err := cuda.New(0)
	if err != nil {
		d.NoGPU = d.brief(err)
		fmt.Fprintf(d.w, "no GPU: %s\n", d.NoGPU)
		return correct, nil
	}
	d.found(gpu.Libraries())
	for _, dtype := range []string{recipes.Float32, recipes.BFloat16, recipes.TF32} {
		if dtype == recipes.TF32 {
			gpu.AllowTF32()
		}
		correct = d.test(gpu, dtype) && correct
	}
	gpu.Close()
	return correct, nil
}

// test reports a device, and returns whether its results are correct.
func (d *checkup) test(dev graph.Device, dtype string) bool {
	started := time.Now()
	run := recipes.Defaults().Run
	run.Device, run.DType = recipes.Auto, dtype
	r, err := verify.SelfTest(dev, run)
	took := time.Since(started)
	t := checkedDevice{Device: dev.Name(), DType: dtype, Correct: err == nil, Seconds: took.Seconds()}
	if err != nil {
		t.Error = err.Error()
		fmt.Fprintf(d.w, "%s, %s: FAILED: %v\n", t.Device, dtype, err)
	} else {
		if run.Mixed() {
			dtype += fmt.Sprintf(", float32 in %d of %d sublayers", r.Float32Sublayers, r.Sublayers)
		}
		fmt.Fprintf(d.w, "%s, %s: correct (%s)\n", t.Device, dtype, duration(took))
	}
	d.Tests = append(d.Tests, t)
	return t.Correct
}
