package train

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/wholefile"
	"github.com/sambatrain/sambatrain/recipes"
)

// TokenizerDir is the folder of a run that keeps its tokenizer's files, so that its model can be
// used where the recipe's path doesn't exist.
const TokenizerDir = "tokenizer"

// keepTokenizer copies a tokenizer's files to a run directory.
func keepTokenizer(run, spec string) error {
	if spec == "bytes" {
		return nil
	}
	tok, err := data.NewTokenizer(spec)
	if err != nil {
		return fmt.Errorf("data.tokenizer: %w", err)
	}
	dir := filepath.Join(run, TokenizerDir)
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	files := tok.ExportFiles()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := wholefile.Write(filepath.Join(dir, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

// TokenizerOf returns the tokenizer of a run in dir, or of a run's checkpoint there, whose recipe
// is r: the one that the run keeps, or else the one that the recipe names.
func TokenizerOf(dir string, r *recipes.Recipe) (data.Tokenizer, error) {
	if checkpoint.Is(dir) {
		var err error
		if dir, _, err = checkpoint.RunOf(dir); err != nil {
			return nil, err
		}
	}
	kept := filepath.Join(dir, TokenizerDir, "tokenizer"+filepath.Ext(r.Data.Tokenizer))
	if _, err := os.Stat(kept); err == nil {
		return data.NewTokenizer(kept)
	}
	tok, err := data.NewTokenizer(r.Data.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("data.tokenizer: %w", err)
	}
	return tok, nil
}
