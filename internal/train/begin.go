package train

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/shell"
	"github.com/sambatrain/sambatrain/internal/wholefile"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// Begin creates the recipe's run directory with a checkpoint of step 0, whose parameters fill
// writes. Resume continues training from there.
func Begin(r *recipes.Recipe, o Options, fill func(parameters []checkpoint.Tensor) error) error {
	plan, err := generate.Plan(&r.Model, 1, 1, 1, layers.Precision{})
	if err != nil {
		return err
	}
	resolved, err := r.YAML()
	if err != nil {
		return err
	}
	parameters := hostTensors(plan.Params, "")
	if err := fill(parameters); err != nil {
		return err
	}
	lock, _, err := claim(r.Run.Out, o, 0)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	metrics, err := createMetrics(r.Run.Out)
	if err != nil {
		return err
	}
	if err := metrics.Close(); err != nil {
		return err
	}
	moments := slices.Concat(hostTensors(plan.Params, checkpoint.ExpAvgPrefix), hostTensors(plan.Params, checkpoint.ExpAvgSqPrefix))
	_, err = lock.Save(checkpoint.State{CodeVersion: o.CodeVersion, Recipe: resolved, RecipeSHA256: checkpoint.RecipeSHA256(resolved)}, parameters, moments)
	if err != nil {
		return err
	}
	if err := keepTokenizer(r.Run.Out, r.Data.Tokenizer); err != nil {
		return err
	}
	// The config comes last: a folder that has one contains a run.
	return wholefile.Write(filepath.Join(r.Run.Out, ConfigFile), resolved)
}

// claim creates and locks a run directory that must not contain a run yet, nor a checkpoint of a step
// after `replaced`, and reports whether it is new.
func claim(dir string, o Options, replaced int64) (lock *checkpoint.Run, made bool, err error) {
	if err := checkVacant(dir, o, replaced); err != nil {
		return nil, false, err
	}
	lock, made, err = makeAndLock(dir, o.Log)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) { // another process has just abandoned the directory
		lock, made, err = makeAndLock(dir, o.Log)
	}
	if errors.Is(err, checkpoint.ErrInUse) {
		err = fmt.Errorf("%w or choose another folder with --out", err)
	}
	if err != nil {
		return nil, false, err
	}
	// Checked again, because another process may have started a run before the lock was taken.
	if err := checkVacant(dir, o, replaced); err != nil {
		lock.Unlock()
		return nil, false, err
	}
	return lock, made, nil
}

func makeAndLock(dir string, log *slog.Logger) (lock *checkpoint.Run, made bool, err error) {
	_, err = os.Stat(dir)
	made = errors.Is(err, fs.ErrNotExist)
	if _, err = wholefile.Behind(dir); err == nil {
		err = checkpoint.MkdirAll(dir)
	}
	if err != nil {
		return nil, false, fmt.Errorf("run.out: %w", err)
	}
	lock, err = lockRun(dir, log)
	return lock, made, err
}

// lockRun locks a run directory, and removes what a process that was killed left in it.
func lockRun(dir string, log *slog.Logger) (*checkpoint.Run, error) {
	lock, err := checkpoint.Lock(dir)
	if err != nil {
		return nil, err
	}
	for _, note := range lock.Recovered {
		log.Warn(note)
	}
	for _, file := range []string{ConfigFile, MetricsFile, SampleFile, ResultFile} {
		names, err := wholefile.RemoveLeft(filepath.Join(dir, file))
		if err != nil {
			return nil, errors.Join(err, lock.Unlock())
		}
		for _, name := range names {
			log.Warn(fmt.Sprintf("%s: removed, left over from a write that was interrupted", filepath.Join(dir, name)))
		}
	}
	return lock, nil
}

// createMetrics creates the metrics of a run that has no config yet.
func createMetrics(dir string) (*runlog.Metrics, error) {
	path := filepath.Join(dir, MetricsFile)
	m, err := runlog.Create(path)
	if errors.Is(err, fs.ErrExist) {
		// Left over from a process that died before its run began.
		if err = os.Remove(path); err == nil {
			m, err = runlog.Create(path)
		}
	}
	return m, err
}

// checkVacant rejects a folder that contains a run, or what is left of one that has lost its config:
// the new run would continue from the other's checkpoints. One of step `replaced` or before is left by an
// import that was killed.
func checkVacant(dir string, o Options, replaced int64) error {
	_, err := os.Stat(filepath.Join(dir, ConfigFile))
	switch {
	case err == nil:
		return fmt.Errorf("%s: already holds a run; continue it with `%s`, or choose another folder with --out", dir, o.resumeCommand(dir, nil))
	case errors.Is(err, fs.ErrNotExist):
		if newest := newestListed(dir); newest != nil && newest.Step > replaced {
			return fmt.Errorf("%w, or choose another folder with --out", lostConfig(dir, newest))
		}
		return nil
	}
	if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
		return fmt.Errorf("%s: is a file, not a folder for a run; choose another with --out", dir)
	}
	return fmt.Errorf("run.out: %w", err)
}

// newestListed returns the newest checkpoint in a run directory, good or not; nil if there is none.
func newestListed(dir string) *checkpoint.Info {
	list, err := checkpoint.List(dir)
	if err != nil || len(list) == 0 {
		return nil
	}
	return &list[len(list)-1]
}

// lostConfig is the error of a run directory whose config is gone; each checkpoint has a copy.
func lostConfig(dir string, newest *checkpoint.Info) error {
	copied := shell.Command("cp", filepath.Join(newest.Dir, checkpoint.RecipeFile), filepath.Join(dir, ConfigFile))
	return fmt.Errorf("%s: has checkpoints but no %s; put it back, for example with `%s`", dir, ConfigFile, copied)
}
