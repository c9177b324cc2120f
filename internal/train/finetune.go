package train

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// begin gives the parameters of step 0: drawn, or those of the newest good checkpoint of
// train.from, with moments of zero.
func (s *session) begin() error {
	from := s.recipe.Train.From
	if from == "" {
		return s.engine.Init(s.recipe.Train.Seed)
	}
	r, c, err := Newest(from, s.options.Log)
	if err != nil {
		return fmt.Errorf("train.from: %w", err)
	}
	if err := sameJSON(r.Model, s.recipe.Model); err != nil {
		return fmt.Errorf("train.from: %s has another model section than this recipe; leave model out of the recipe, or make them equal", from)
	}
	if r.Data.Tokenizer != s.recipe.Data.Tokenizer {
		return fmt.Errorf("train.from: %s was trained with tokenizer %s, data.tokenizer is %s", from, r.Data.Tokenizer, s.recipe.Data.Tokenizer)
	}
	if err := s.engine.LoadParameters(c); err != nil {
		return err
	}
	s.options.Log.Info("parameters", "from", c.Dir, "step", c.State.Step)
	return nil
}

// sameJSON is an error unless a and b are the same as JSON.
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
