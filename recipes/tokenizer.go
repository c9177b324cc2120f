package recipes

import (
	"fmt"

	"github.com/sambatrain/sambatrain/data"
)

// CheckTokenizer rejects a tokenizer with ids for which the model's embedding has no row.
func (r *Recipe) CheckTokenizer(tok data.Tokenizer) error {
	if n := tok.VocabSize(); n > r.Model.VocabSize {
		return fmt.Errorf("model.vocab_size: %d is less than the %d of tokenizer %s: raise it", r.Model.VocabSize, n, tok.Name())
	}
	return nil
}
