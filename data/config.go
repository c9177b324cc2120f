package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// maxSeqLen keeps the window of open blocks (see order) below about a GiB.
const maxSeqLen = 1 << 24

// Config is the `data:` section of a recipe.
type Config struct {
	// Text is the folder of text that the shards are made from. It may be omitted if Shards exists.
	Text TextConfig `yaml:"text"`

	// Shards is the folder of token shards. Prepare makes it from Text if it doesn't exist, and
	// uses it unchanged if it was made from the same settings. $NAME and ${NAME} are replaced as in
	// TextConfig.Path.
	Shards string `yaml:"shards"`

	// Mixture lists the sources that training rows are drawn from by weight, instead of Text and
	// Shards.
	Mixture []WeightedSource `yaml:"mixture"`

	// Tokenizer names the tokenizer, see NewTokenizer. The model's vocab_size must be at least its VocabSize.
	Tokenizer string `yaml:"tokenizer"`

	// SeqLen is T, the number of positions in a training row, in tokens.
	SeqLen int `yaml:"seq_len"`

	// ValidationFraction is the fraction of documents, in [0, 1), that is held out of training. The
	// split of a document depends only on the hash of its bytes, so equal documents are in the same
	// split. 0 holds nothing out. Text.Validation takes precedence over it.
	ValidationFraction float64 `yaml:"validation_fraction"`

	// Seed determines the order of the training blocks, and nothing else.
	Seed uint64 `yaml:"seed"`

	// Generate generates rows instead of reading Shards or a Mixture: those and Text must be empty.
	Generate Generated `yaml:"generate"`

	// ResetState keeps the documents of a row apart: a model's state is reset at the end of each,
	// so that each is processed as it would be alone. Without it a token sees everything before it
	// in the row, including other documents.
	ResetState bool `yaml:"reset_state"`

	// SkipVerify skips the checksums of whole shards when a dataset is opened, which read every
	// byte of them. Sizes, schemas and counts are checked in any case.
	SkipVerify bool `yaml:"skip_verify"`
}

// TextConfig says which files of a folder are read, and how.
type TextConfig struct {
	// Path is the folder. $NAME and ${NAME} stand for environment variables; an unset one is an
	// error. $GOROOT needs no variable if a Go toolchain is installed.
	Path string `yaml:"path"`

	// Include and Exclude are doublestar patterns (`**/*.go`) over paths relative to Path, with
	// slashes. A file is read if an Include pattern matches its path (or none is given) and no
	// Exclude pattern does, with or without a .gz or .zst suffix.
	Include []string `yaml:"include"`
	Exclude []string `yaml:"exclude"`

	// Validation are patterns like Include: the documents of files that match are the validation
	// split, and all others that of training. Without any, ValidationFraction divides them.
	Validation []string `yaml:"validation"`

	// JSONL are patterns like Include, of files that have a JSON object on each line although they
	// aren't called .jsonl.
	JSONL []string `yaml:"jsonl"`

	// JSONLField is the field of each line of a JSONL file that contains the document's text, and
	// the column of a .parquet or .arrow file.
	JSONLField string `yaml:"jsonl_field"`
}

// DefaultConfig returns the values of the keys that a recipe may leave out.
func DefaultConfig() Config {
	return Config{
		Text:               TextConfig{JSONLField: "text"},
		Tokenizer:          "bytes",
		SeqLen:             512,
		ValidationFraction: 0.01,
		Seed:               3407,
		Generate:           Generated{Loss: LossAnswer},
	}
}

// Validate reports the first wrong key. It doesn't read any file.
func (c Config) Validate() error {
	if err := c.Generate.validate(); err != nil {
		return err
	}
	if err := c.checkGeneratedAlone(); err != nil {
		return err
	}
	if len(c.Mixture) > 0 {
		return c.validateMixture()
	}
	if c.Shards == "" && c.Generate.Task == "" {
		return errors.New("data.shards: is empty: name the folder of token shards")
	}
	if _, err := tokenizerOpener(c.Tokenizer); err != nil {
		return fmt.Errorf("data.tokenizer: %w", err)
	}
	if c.SeqLen < 1 {
		return fmt.Errorf("data.seq_len: must be at least 1, is %d", c.SeqLen)
	}
	if c.SeqLen > maxSeqLen {
		return fmt.Errorf("data.seq_len: must be at most %d, is %d", maxSeqLen, c.SeqLen)
	}
	if !(c.ValidationFraction >= 0 && c.ValidationFraction < 1) {
		return fmt.Errorf("data.validation_fraction: must be at least 0 and below 1, is %v", c.ValidationFraction)
	}
	return c.Text.validate()
}

// checkGeneratedAlone reports keys that are not read because rows are generated.
func (c Config) checkGeneratedAlone() error {
	if c.Generate.Task == "" {
		return nil
	}
	var idle []string
	for _, other := range []struct {
		key string
		set bool
	}{{"data.shards", c.Shards != ""}, {"data.text", c.Text.selects()}, {"data.mixture", len(c.Mixture) > 0}} {
		if other.set {
			idle = append(idle, other.key)
		}
	}
	if len(idle) > 0 {
		return fmt.Errorf("data.generate.task: generated rows replace %s; leave out one or the other", strings.Join(idle, " and "))
	}
	return nil
}

// selects reports whether t names a folder, or files of one.
func (t TextConfig) selects() bool {
	return t.Path != "" || len(t.Include)+len(t.Exclude)+len(t.Validation)+len(t.JSONL) > 0
}

// validate reports the first wrong key. It doesn't access any file.
func (t TextConfig) validate() error {
	if t.Path != "" && t.JSONLField == "" {
		return errors.New("data.text.jsonl_field: is empty: name the field of a JSONL line that holds the text")
	}
	for _, list := range []struct {
		key      string
		patterns []string
	}{{"include", t.Include}, {"exclude", t.Exclude}, {"validation", t.Validation}, {"jsonl", t.JSONL}} {
		for i, p := range list.patterns {
			if !doublestar.ValidatePattern(p) {
				return fmt.Errorf("data.text.%s[%d]: bad pattern %q: want a form such as **/*.txt", list.key, i, p)
			}
		}
	}
	return nil
}

// folder returns Path with its variables replaced, after checking that it is a folder.
func (t TextConfig) folder() (string, error) {
	dir, err := expand("data.text.path", t.Path)
	if err != nil {
		return "", err
	}
	from, install := "", ""
	if dir != t.Path {
		from = fmt.Sprintf(" (from %s)", t.Path)
	}
	if usesGOROOT(t.Path) {
		install = "install Go, or "
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", absentf("data.text.path: no folder %s%s: %spoint at another folder of text with --set data.text.path=DIR", dir, from, install)
	case err != nil:
		return "", fmt.Errorf("data.text.path: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("data.text.path: %s%s is a file: name its folder, and pick the file with data.text.include", dir, from)
	}
	return dir, nil
}

// expand replaces $NAME and ${NAME} in the path under key.
func expand(key, path string) (string, error) {
	var missing string
	out := os.Expand(path, func(name string) string {
		if name == "GOROOT" {
			if dir := goroot(); dir != "" {
				return dir
			}
		} else if v := os.Getenv(name); v != "" {
			return v
		}
		if missing == "" {
			missing = name
		}
		return ""
	})
	switch {
	case missing == "GOROOT":
		return "", absentf("%s: no Go toolchain found for $GOROOT in %s: install Go, or point at another folder with --set %s=DIR", key, path, key)
	case missing != "":
		return "", absentf("%s: environment variable %s in %s is not set or empty: set it, or point at another folder with --set %s=DIR", key, missing, path, key)
	}
	return filepath.Clean(out), nil
}

func usesGOROOT(path string) bool {
	return strings.Contains(path, "$GOROOT") || strings.Contains(path, "${GOROOT}")
}

// goroot returns the folder of the Go toolchain, or "".
func goroot() string {
	if dir := os.Getenv("GOROOT"); dir != "" {
		return dir
	}
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		if dir := strings.TrimSpace(string(out)); dir != "" {
			return dir
		}
	}
	return ""
}
