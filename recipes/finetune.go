package recipes

import (
	"fmt"

	"github.com/sambatrain/sambatrain/data"
)

// FineTune returns a recipe that continues from the run whose recipe is base and whose folder is
// from: base, changed by a task of data.generate (may be empty), then by a recipe without a model
// section (may be empty), then by sets.
func FineTune(base *Recipe, from, task, name string, sets ...string) (*Recipe, error) {
	r := *base
	r.Train.From, r.Train.Steps, r.Train.Tokens = from, 0, 0
	r.Run.Out = ""
	p := positions{}
	for _, set := range taskSets(base, task) {
		if err := r.set(set, p); err != nil {
			return nil, err
		}
	}
	s := source{from: from}
	if name != "" {
		var err error
		if s, err = open(name); err != nil {
			return nil, err
		}
		if err := r.read(s, p, nil); err != nil {
			return nil, err
		}
	}
	done, err := r.finish(s, p, sets)
	if err == nil && task != "" && done.Data.Generate.Task == "" {
		return nil, fmt.Errorf("%s: data.shards or data.mixture, given beside the task %s, replaces its rows: leave one of them out", s.from, task)
	}
	return done, err
}

// taskSets returns the settings of Samba's fine-tuning for long retrieval (arXiv 2406.07522,
// appendix C); the batch size is that of the run.
func taskSets(base *Recipe, task string) []string {
	if task == "" {
		return nil
	}
	steps, warmup := 500, 250
	if task == data.TaskPhonebook {
		steps, warmup = 100, 50
	}
	return []string{
		fmt.Sprintf("name=%s-%s", base.Name, task),
		"data.generate.task=" + task,
		fmt.Sprintf("train.steps=%d", steps), fmt.Sprintf("optim.warmup_steps=%d", warmup),
		"optim.schedule=cosine", "optim.lr=1e-4", "optim.min_lr=1e-5", "optim.weight_decay=0.1",
		"eval.lengths=[1]", "eval.every=100", "sample.tokens=0",
	}
}
