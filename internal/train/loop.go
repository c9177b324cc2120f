package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/plainjson"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/shell"
	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// run does the remaining steps, and what ends a run.
func (s *session) run(ctx context.Context) (*Result, error) {
	r := s.recipe
	var err error
	if s.first() {
		if s.events, err = runlog.CreateEvents(s.dir, int(s.step)+1); err != nil {
			return nil, err
		}
		if free, known := freeDisk(s.dir); known {
			if err := s.warnOfDisk(free); err != nil {
				return nil, err
			}
		}
		s.warnOfWarmup()
		s.console = s.options.Console(runlog.ConsoleOptions{Total: int(r.Train.Steps), LogEvery: int(r.Run.LogEvery)})
	}
	started := time.Now()
	finished := s.step == r.Train.Steps // resumed for what comes after the last checkpoint
	if finished {
		s.options.Log.Info("all steps are already done; validating and sampling again, --set train.steps=... trains further", "steps", s.step)
		if s.loss, err = lastLoss(filepath.Join(s.dir, MetricsFile)); err != nil {
			return nil, err
		}
	} else if err := s.steps(ctx); err != nil {
		return nil, err
	}
	last, err := s.validate()
	if err != nil {
		return nil, err
	}
	if !finished {
		if err := s.recordValidation(last); err != nil {
			return nil, err
		}
		if err := s.lastSave(); err != nil {
			return nil, err
		}
	}
	if err := s.checkFinite(last); err != nil {
		return nil, err
	}
	s.ended = true
	if !s.first() {
		return nil, nil
	}
	return s.report(ctx, last, time.Since(started))
}

// warnOfWarmup says if the warm-up takes all steps of the run, as it does in a short trial of a recipe
// with a number of warm-up steps.
func (s *session) warnOfWarmup() {
	r := s.recipe
	if warmup := r.Optim.Warmup(r.Train.Steps); warmup >= r.Train.Steps && s.step < r.Train.Steps {
		s.options.Log.Warn("the run ends before its warm-up: the learning rate does not reach optim.lr", "optim.warmup_steps", warmup, "train.steps", r.Train.Steps)
	}
}

// past returns the error of a run that has done more steps than requested: they can't be undone.
func (s *session) past() error {
	return fmt.Errorf("train.steps: %d, and %s has done %d steps already; ask for more, or use an earlier checkpoint in place of the run: `%s` lists them",
		s.recipe.Train.Steps, s.dir, s.step, shell.Command("sambatrain", "checkpoint", "ls", s.dir))
}

// report writes the run's sample and its result; the result comes last.
func (s *session) report(ctx context.Context, last []score, took time.Duration) (*Result, error) {
	result := &Result{
		Run: s.dir, Steps: s.step, Tokens: s.tokensAt(s.step), Parameters: s.parameters(),
		TrainLoss: s.loss, ValLoss: last[0].Loss, ValBitsPerByte: last[0].BitsPerByte, ValLonger: s.longer(last), ValBySource: s.bySource(last),
		Device: s.dev.Name(), Seconds: took.Seconds(), Sources: s.train.Read(s.position()),
	}
	var err error
	if result.TokensPerSecond, err = medianSpeed(filepath.Join(s.dir, MetricsFile)); err != nil {
		return nil, err
	}
	result.UnigramBitsPerByte, _ = s.train.UnigramBitsPerByte()
	if s.recipe.Sample.Tokens > 0 {
		if result.Sample, err = s.sample(ctx); err != nil {
			return nil, err
		}
		if err := wholefile.Write(filepath.Join(s.dir, SampleFile), []byte(result.Sample)); err != nil {
			return nil, err
		}
	}
	text, err := plainjson.Indented(result)
	if err != nil {
		return nil, err
	}
	return result, wholefile.Write(filepath.Join(s.dir, ResultFile), text)
}

// checkFinite rejects scores that can't be reported: of a model whose loss isn't finite, and of rows
// without text.
func (s *session) checkFinite(scores []score) error {
	for i, v := range scores[:len(s.recipe.Eval.Lengths)] {
		if math.IsNaN(v.Loss) || math.IsInf(v.Loss, 0) {
			return fmt.Errorf("step %d: training has diverged, the validation loss on rows of %d tokens is %v; start a new run with a lower optim.lr", s.step, s.recipe.Eval.Lengths[i]*s.recipe.Data.SeqLen, v.Loss)
		}
	}
	for _, v := range scores { // of sources, too
		if math.IsInf(v.BitsPerByte, 0) {
			return fmt.Errorf("eval.rows: the %d tokens that were measured stand for no text, only for its ends; measure more with `%s`", v.Tokens, s.resumeCommand("eval.rows=..."))
		}
	}
	return nil
}

// position returns the number of rows trained on.
func (s *session) position() int64 { return s.step * int64(s.recipe.Train.BatchSize) }

// lastLoss returns the training loss of the last recorded step.
func lastLoss(metrics string) (float64, error) {
	records, _, err := runlog.Read(metrics)
	if err != nil {
		return 0, err
	}
	for _, r := range slices.Backward(records) {
		if r.Kind == runlog.KindTrain {
			return r.Train.Loss, nil
		}
	}
	return 0, fmt.Errorf("%s: records no training step of a run that did them all; put it back, or delete the last checkpoint to do the steps after the one before again", metrics)
}

// medianSpeed returns the tokens per second of the median recorded training step.
func medianSpeed(metrics string) (float64, error) {
	records, _, err := runlog.Read(metrics)
	if err != nil {
		return 0, err
	}
	var speeds []float64
	for _, r := range records {
		if r.Kind == runlog.KindTrain {
			speeds = append(speeds, r.Train.TokensPerSecond)
		}
	}
	if len(speeds) == 0 {
		return 0, fmt.Errorf("%s: records no training step", metrics)
	}
	slices.Sort(speeds)
	return (speeds[(len(speeds)-1)/2] + speeds[len(speeds)/2]) / 2, nil
}

func (s *session) tokensAt(step int64) int64 {
	return step * int64(s.recipe.Train.BatchSize) * int64(s.recipe.Data.SeqLen)
}

// stepBatch is this process's rows of a step.
type stepBatch struct {
	rows            []int32 // of T+1 tokens
	tokens, targets []int32
}

// steps trains until the last step, or until ctx ends.
func (s *session) steps(ctx context.Context) error {
	r, t := s.recipe, s.engine.SeqLen
	rows := r.Train.BatchSize / s.processes()
	loader, err := data.NewShareLoader(s.train, data.Share{Rank: s.options.Place.Rank, Size: s.processes()}, r.Train.BatchSize, s.step)
	if err != nil {
		return err
	}
	defer loader.Close()
	b := &stepBatch{rows: make([]int32, rows*(t+1)), tokens: make([]int32, rows*t), targets: make([]int32, rows*t)}
	for s.step < r.Train.Steps {
		if s.alone() && ctx.Err() != nil {
			return s.stop()
		}
		stopping, err := s.oneStep(ctx, loader, b)
		if err != nil {
			return err
		}
		if err := s.betweenSteps(); err != nil {
			return err
		}
		if stopping && s.step < r.Train.Steps {
			return s.stop()
		}
	}
	return nil
}

// oneStep trains on the next batch and records the result. stopping: a process of the run was asked
// to stop.
func (s *session) oneStep(ctx context.Context, loader *data.Loader, b *stepBatch) (stopping bool, err error) {
	r := s.recipe
	started := time.Now()
	spell := s.halt.begins(stepping, fmt.Sprintf("step %d", s.step+1), started)
	wait, err := loader.Next(b.rows)
	if err != nil {
		return false, s.dataLost(err)
	}
	splitRows(b.rows, b.tokens, b.targets, s.engine.SeqLen)
	loss, norm, err := s.engine.Step(s.step, r.Train.Steps, b.tokens, b.targets)
	skipped, err := s.guard.verdict(loss, norm, err)
	diverged := errors.Is(err, errDiverged)
	if err != nil && !diverged {
		return false, err
	}
	bytes, count, stopping, err := s.exchange(ctx, data.TextBytes(s.train.Tokenizer(), b.targets), counted(b.targets))
	if err != nil {
		return false, err
	}
	took := time.Since(started)
	s.halt.ends(spell, time.Now())
	lr := r.Optim.LR(s.step, r.Train.Steps)
	s.step++
	s.loss = loss
	err = s.record(runlog.TrainRecord(int(s.step), time.Now(), runlog.Train{
		Loss:            loss,
		BitsPerByte:     data.BitsPerByte(loss*float64(count), bytes),
		LR:              lr,
		GradNorm:        norm,
		Tokens:          s.tokensAt(s.step),
		TokensPerSecond: float64(len(b.tokens)*s.processes()) / took.Seconds(),
		StepMS:          float64(took) / float64(time.Millisecond),
		DataWaitMS:      float64(wait) / float64(time.Millisecond),
	}))
	if err != nil {
		return false, err
	}
	if diverged {
		return false, fmt.Errorf("step %d: training has diverged, the loss is %v and the gradient's norm %v; delete the last checkpoint if it is affected too, and continue with `%s` and a learning rate below %v", s.step, loss, norm, s.resumeCommand(lowerLR), r.Optim.PeakLR)
	}
	return stopping, s.skip(skipped)
}

// betweenSteps records a save that has ended, and validates and saves when that is due. After the
// last step the end of the run does both.
func (s *session) betweenSteps() error {
	r := s.recipe
	if v, ok := s.saver.ended(false); ok {
		if err := s.recordSaved(v); err != nil {
			return err
		}
	}
	if s.step == r.Train.Steps {
		return nil
	}
	if r.Eval.Every > 0 && s.step%r.Eval.Every == 0 {
		v, err := s.validate()
		if err != nil {
			return err
		}
		if err := s.recordValidation(v); err != nil {
			return err
		}
	}
	if s.step%int64(r.Checkpoint.Every) == 0 {
		return s.save()
	}
	return nil
}

// skip counts the step, and reports it if its update was skipped.
func (s *session) skip(reason string) error {
	s.guard.count(s.loss, reason != "")
	if reason == "" {
		return nil
	}
	s.engine.CountSkipped(s.guard.Skipped)
	detail := fmt.Sprintf("%s; %d skipped so far", reason, s.guard.Skipped)
	if err := s.record(runlog.EventRecord(int(s.step), time.Now(), runlog.EventSkipped, detail)); err != nil {
		return err
	}
	return s.abortion(reason)
}

// record writes to all logs.
func (s *session) record(r runlog.Record) error {
	if !s.first() {
		return nil
	}
	s.console.Step(r)
	if err := s.metrics.Append(r); err != nil {
		return err
	}
	return s.events.Append(r)
}

// validate measures the loss on the validation split.
func (s *session) validate() ([]score, error) {
	what := fmt.Sprintf("the validation after step %d", s.step)
	scores, err := s.val.run(func(f func() error) error { return s.halt.during(validating, what, f) })
	var lost *rowsLost
	if errors.As(err, &lost) {
		// Not saved: the run would continue without a record of this validation.
		err = s.fromLast(what, err)
	}
	return scores, err
}

// recordValidation records the scores of all eval.lengths and sources, and what was read so far.
func (s *session) recordValidation(scores []score) error {
	return s.record(runlog.ValRecord(int(s.step), time.Now(), runlog.Val{
		Loss: scores[0].Loss, BitsPerByte: scores[0].BitsPerByte, Longer: s.longer(scores), BySource: s.bySource(scores), Sources: s.sources()}))
}

// sources returns what training has read so far.
func (s *session) sources() []runlog.Source {
	var list []runlog.Source
	for _, x := range s.train.Read(s.position()) {
		list = append(list, runlog.Source{Name: x.Name, Epochs: x.Epochs, Tokens: x.Tokens})
	}
	slices.SortFunc(list, func(a, b runlog.Source) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// longer returns the scores of rows longer than those of training.
func (s *session) longer(scores []score) []runlog.ValAt {
	var list []runlog.ValAt
	for i, times := range s.recipe.Eval.Lengths[1:] {
		v := scores[i+1]
		list = append(list, runlog.ValAt{Times: times, Loss: v.Loss, BitsPerByte: v.BitsPerByte})
	}
	return list
}

// bySource returns the scores of a mixture's sources.
func (s *session) bySource(scores []score) []runlog.ValOf {
	var list []runlog.ValOf
	for i, name := range s.val.sources {
		v := scores[len(s.recipe.Eval.Lengths)+i]
		list = append(list, runlog.ValOf{Name: name, Loss: v.Loss, BitsPerByte: v.BitsPerByte})
	}
	return list
}

// dataLost saves, since the steps done so far are good, and says how to continue.
func (s *session) dataLost(cause error) error {
	what := fmt.Sprintf("step %d", s.step+1)
	if !s.alone() {
		return s.fromLast(what, cause)
	}
	if err := s.lastSave(); err != nil {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("%s: %w; the steps before it are saved, continue with: %s", what, cause, s.resumeCommand())
}

// fromLast says why something can't be done, and how to continue.
func (s *session) fromLast(what string, cause error) error {
	return fmt.Errorf("%s: %w; continue from the last checkpoint with: %s", what, cause, s.resumeCommand())
}

// stop saves, so that the run can be resumed, and says so.
func (s *session) stop() error {
	if err := s.lastSave(); err != nil {
		return err
	}
	if err := s.record(runlog.EventRecord(int(s.step), time.Now(), runlog.EventStopped, "")); err != nil {
		return err
	}
	s.ended = true
	return s.stopped(s.step)
}
