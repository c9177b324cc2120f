package train

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/recipes"
)

// begin sets the parameters of step 0: random ones, or those of the newest good checkpoint of
// train.from, with moments of zero.
func (s *session) begin() error {
	from := s.recipe.Train.From
	if from == "" {
		return s.engine.Init(s.recipe.Train.Seed)
	}
	defer s.slow("reading the checkpoint of train.from")()
	r, err := TrainedConfig(from)
	if err != nil {
		return fmt.Errorf("train.from: %w", err)
	}
	c, err := s.found(from, func() (*checkpoint.Checkpoint, error) {
		_, c, err := newestOpened(s.opener(), from, s.options.Log)
		return c, err
	})
	if err != nil {
		return fmt.Errorf("train.from: %w", err)
	}
	if err := sameJSON(r.Model, s.recipe.Model); err != nil {
		return fmt.Errorf("train.from: %s has another model section than this recipe; leave model out of the recipe, or make them equal", from)
	}
	if err := s.sameTokenizer(from, r); err != nil {
		return err
	}
	if err := s.engine.LoadParameters(c); err != nil {
		return err
	}
	s.options.Log.Info("parameters", "from", c.Dir, "step", c.State.Step)
	return nil
}

// sameTokenizer returns an error unless this recipe's tokenizer gives the same ids as the one that
// a run was trained with.
func (s *session) sameTokenizer(run string, r *recipes.Recipe) error {
	defer s.halt.disk("reading the tokenizers of two runs")()
	was, err := TokenizerOf(run, r)
	if err != nil {
		return fmt.Errorf("train.from: %s: %w", run, err)
	}
	is, err := data.NewTokenizer(s.recipe.Data.Tokenizer)
	if err == nil && is.Fingerprint() != was.Fingerprint() {
		err = fmt.Errorf("train.from: %s was trained with tokenizer %s, data.tokenizer is %s", run, r.Data.Tokenizer, s.recipe.Data.Tokenizer)
	}
	return err
}

// sameJSON returns an error unless a and b are the same as JSON.
func sameJSON(a, b any) error {
	x, err := json.Marshal(a)
	if err != nil {
		return err
	}
	y, err := json.Marshal(b)
	if err == nil && !bytes.Equal(x, y) {
		err = fmt.Errorf("%s is not %s", x, y)
	}
	return err
}
