package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newCheckpoint(a *app) *cobra.Command {
	c := &cobra.Command{Use: "checkpoint", Short: "List, check, remove and compare checkpoints"}
	c.AddCommand(newCheckpointList(), newCheckpointVerify(), newCheckpointPrune(a), newCheckpointDiff(a))
	return c
}

// checkpointStatus is one checkpoint in a command's result.
type checkpointStatus struct {
	Step    int64      `json:"step"`
	Tokens  int64      `json:"tokens"`
	SavedAt *time.Time `json:"saved_at,omitempty"`
	Bytes   int64      `json:"bytes"`
	Dir     string     `json:"dir"`
	Error   string     `json:"error,omitempty"`
	// Unreadable: this process can't read it, so it may be good in spite of Error.
	Unreadable bool `json:"unreadable,omitempty"`
}

// fault says in a word what is wrong with a file.
func fault(unreadable bool) string {
	if unreadable {
		return "UNREADABLE"
	}
	return "DAMAGED"
}

// statusOf describes a checkpoint by its manifest; err is what is wrong with it.
func statusOf(info checkpoint.Info, c *checkpoint.Checkpoint, err error) checkpointStatus {
	s := checkpointStatus{Step: info.Step, Bytes: info.Bytes, Dir: info.Dir}
	if err != nil {
		s.Error, s.Unreadable = err.Error(), checkpoint.Refused(err)
		return s
	}
	s.Step, s.Tokens, s.SavedAt = c.Step, c.Tokens, &c.SavedAt
	return s
}

func newCheckpointList() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:     "ls RUN_DIR",
		Short:   "List a run's checkpoints without reading their tensors",
		Example: "  sambatrain checkpoint ls runs/quickstart",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := train.LoadConfig(args[0]); err != nil {
				return err
			}
			infos, err := checkpoint.List(args[0])
			if err != nil {
				return err
			}
			list := []checkpointStatus{}
			for _, info := range infos {
				described, err := checkpoint.Describe(info.Dir)
				list = append(list, statusOf(info, described, err))
			}
			return printResult(c, output, list, func(w io.Writer) error { return listText(w, list) })
		},
	}
	outputFlag(c, &output)
	return c
}

func listText(w io.Writer, list []checkpointStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "step\ttokens\tsaved (UTC)\tsize\tfolder")
	for _, s := range list {
		if s.Error != "" {
			fmt.Fprintf(t, "%d\t\t%s\t%s\t%s\n", s.Step, fault(s.Unreadable), megabytes(s.Bytes), s.Error)
			continue
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\n", s.Step, s.Tokens, s.SavedAt.UTC().Format(time.DateTime), megabytes(s.Bytes), s.Dir)
	}
	return t.Flush()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func newCheckpointVerify() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:   "verify DIR...",
		Short: "Read whole checkpoints and compare them with their checksums",
		Long: `Read the checkpoints of runs, or single ones, and compare every file with its size,
SHA-256 and format. Exit status 1 if one is damaged or can't be read. Of several folders,
those without checkpoints are named and left out.`,
		Example: "  sambatrain checkpoint verify runs/*",
		Args:    atLeastOneArg("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			infos, err := checkpointsInAll(args)
			if err != nil {
				return err
			}
			list := []checkpointStatus{}
			for _, info := range infos {
				loaded, err := checkpoint.Load(info.Dir)
				if err != nil && checkpoint.Gone(info.Dir) {
					continue // removed in the meantime by the run, which is still in progress
				}
				s := statusOf(info, loaded, err)
				list = append(list, s)
				if output == outputText { // at once: reading the next one may take minutes
					if err := verifiedCheckpoint(c.OutOrStdout(), s); err != nil {
						return err
					}
				}
			}
			if output == outputJSON {
				if err := writeJSON(c.OutOrStdout(), list); err != nil {
					return err
				}
			}
			if slices.ContainsFunc(list, func(s checkpointStatus) bool { return s.Error != "" }) {
				return errReported
			}
			return nil
		},
	}
	outputFlag(c, &output)
	return c
}

func verifiedCheckpoint(w io.Writer, s checkpointStatus) error {
	word, what := "good", s.Dir
	if s.Error != "" {
		word, what = fault(s.Unreadable), s.Error
	}
	_, err := fmt.Fprintf(w, "%-8s %s\n", word, what)
	return err
}

// checkpointsInAll returns the checkpoints of several runs, or single ones. Folders without any are
// left out, such as that of shards among runs/*, unless there is nothing but them.
func checkpointsInAll(dirs []string) ([]checkpoint.Info, error) {
	var infos []checkpoint.Info
	var none []error
	for _, dir := range dirs {
		more, err := checkpointsIn(dir)
		switch {
		case err == nil:
			infos = append(infos, more...)
		case withoutCheckpoints(dir):
			none = append(none, err)
		default:
			return nil, err
		}
	}
	if len(infos) == 0 {
		return nil, none[0]
	}
	for _, err := range none {
		slog.Warn("a folder without checkpoints is left out", "reason", err)
	}
	return infos, nil
}

// withoutCheckpoints reports whether dir is a folder of something else than a run, or of a run that
// has saved no checkpoint yet.
func withoutCheckpoints(dir string) bool {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, train.ConfigFile)); err != nil {
		return errors.Is(err, fs.ErrNotExist) && !isCheckpoint(dir)
	}
	list, err := checkpoint.List(dir)
	return err == nil && len(list) == 0
}

// checkpointsIn returns the checkpoints of a run directory, or dir itself if it is a checkpoint.
func checkpointsIn(dir string) ([]checkpoint.Info, error) {
	if _, err := os.Stat(filepath.Join(dir, train.ConfigFile)); err == nil {
		infos, err := checkpoint.List(dir)
		if err == nil && len(infos) == 0 {
			err = fmt.Errorf("%s: the run has saved no checkpoint yet", dir)
		}
		return infos, err
	}
	if isCheckpoint(dir) {
		return []checkpoint.Info{{Dir: dir}}, nil
	}
	_, err := train.LoadConfig(dir)
	return nil, err
}

// isCheckpoint reports whether dir is a checkpoint. A damaged one is recognized by its name.
func isCheckpoint(dir string) bool {
	return checkpoint.Is(dir) || strings.HasPrefix(filepath.Base(dir), "step-")
}

func newCheckpointPrune(a *app) *cobra.Command {
	var last, every int
	c := &cobra.Command{
		Use:   "prune RUN_DIR",
		Short: "Remove a run's older checkpoints",
		Long: `Remove all checkpoints except the newest ones and those whose step is a multiple of
--keep-every. Both numbers default to those of the run's recipe. The newest good
checkpoint is never removed.`,
		Example: "  sambatrain checkpoint prune runs/quickstart --keep-last 1",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := train.LoadConfig(args[0])
			if err != nil {
				return err
			}
			if !c.Flags().Changed("keep-last") {
				last = r.Checkpoint.KeepLast
			}
			if !c.Flags().Changed("keep-every") {
				every = r.Checkpoint.KeepEvery
			}
			if last < 1 || every < 0 {
				return &usageError{fmt.Errorf("--keep-last: must be at least 1, and --keep-every not negative; they are %d and %d", last, every)}
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			run, err := checkpoint.Lock(args[0])
			if err != nil {
				return err
			}
			defer run.Unlock()
			for _, note := range run.Recovered {
				log.Warn(note)
			}
			removed, err := run.Prune(last, every)
			for _, info := range removed {
				fmt.Fprintf(c.OutOrStdout(), "removed %s (%s)\n", info.Dir, megabytes(info.Bytes))
			}
			return err
		},
	}
	c.Flags().IntVar(&last, "keep-last", 0, "number of newest checkpoints to keep (default: checkpoint.keep_last of the recipe)")
	c.Flags().IntVar(&every, "keep-every", 0, "also keep steps that are multiples of this (default: checkpoint.keep_every of the recipe)")
	return c
}

func newCheckpointDiff(a *app) *cobra.Command {
	var output outputForm
	var all bool
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two checkpoints, tensor by tensor",
		Long: `Compare two checkpoints, or the newest good ones of two runs. Exit status 0 if all
tensors are bit-identical, 1 if not.

Of many tensors that differ, the 10 parameters and the 10 moments that differ most,
relative to their norm, are shown. JSON has all of them.`,
		Example: "  sambatrain checkpoint diff runs/a runs/b/checkpoints/step-00000100",
		Args:    exactArgs("A", "B"),
		RunE: func(c *cobra.Command, args []string) error {
			log, err := a.logger()
			if err != nil {
				return err
			}
			for _, dir := range args {
				if _, err := checkpointsIn(dir); err != nil {
					return err
				}
			}
			var pair [2]*checkpoint.Checkpoint
			for i, dir := range args {
				if pair[i], err = oneCheckpoint(dir, log); err != nil {
					return err
				}
			}
			d, err := checkpoint.Diff(pair[0], pair[1], train.RecipeDifferences)
			if err != nil {
				return err
			}
			err = printResult(c, output, d, func(w io.Writer) error { return diffText(w, d, all) })
			if err == nil && !d.Same {
				err = fmt.Errorf("the checkpoints differ: %w", errReported)
			}
			return err
		},
	}
	c.Flags().BoolVar(&all, "all", false, "show all tensors that differ, by name")
	outputFlag(c, &output)
	return c
}

// oneCheckpoint returns dir, or the newest good checkpoint of the run in dir. Damaged newer ones are
// reported to log.
func oneCheckpoint(dir string, log *slog.Logger) (*checkpoint.Checkpoint, error) {
	if _, err := os.Stat(filepath.Join(dir, train.ConfigFile)); err == nil {
		c, skipped, err := checkpoint.Newest(dir)
		train.LogSkipped(log, skipped)
		return c, err
	}
	return checkpoint.Load(dir)
}

// shownTensors is how many parameters, and how many moments, `checkpoint diff` shows.
const shownTensors = 10

// diffText writes the differences, of tensors all or the largest.
func diffText(w io.Writer, d *checkpoint.Difference, all bool) error {
	for _, line := range d.State {
		fmt.Fprintln(w, line)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(d.Tensors) > 0 {
		fmt.Fprintln(t, "tensor\tlargest difference\t||a-b||/||b||")
	}
	for _, part := range []struct{ name, things string }{{"model", "parameter"}, {"optimizer", "moment"}} {
		var shown []checkpoint.TensorDifference
		for _, x := range d.Tensors {
			if x.Part == part.name {
				shown = append(shown, x)
			}
		}
		others := 0
		if !all && len(shown) > shownTensors {
			others = len(shown) - shownTensors
			shown = mostDifferent(shown)[:shownTensors]
		}
		for _, x := range shown {
			if x.Note != "" {
				fmt.Fprintf(t, "%s\t%s\t\n", x.Name, x.Note)
				continue
			}
			fmt.Fprintf(t, "%s\t%.3g\t%.3g\n", x.Name, float64(x.Max), float64(x.Relative))
		}
		if others > 0 {
			fmt.Fprintf(t, "%s more; --all shows them\t\t\n", count(int64(others), part.things))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d tensors are the same, bit for bit\n", d.Equal, d.Equal+len(d.Tensors))
	return err
}

// mostDifferent sorts tensors: first those that can't be compared, then by relative difference, the
// largest first.
func mostDifferent(tensors []checkpoint.TensorDifference) []checkpoint.TensorDifference {
	difference := func(x checkpoint.TensorDifference) float64 {
		if x.Note != "" || math.IsNaN(float64(x.Relative)) {
			return math.Inf(1)
		}
		return float64(x.Relative)
	}
	return slices.SortedStableFunc(slices.Values(tensors), func(a, b checkpoint.TensorDifference) int {
		return cmp.Compare(difference(b), difference(a))
	})
}
