package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/wholefile"
)

func newTokenizer(a *app) *cobra.Command {
	c := &cobra.Command{Use: "tokenizer", Short: "Train, describe and try tokenizers", Args: cobra.ArbitraryArgs}
	c.AddCommand(newTokenizerTrain(a), newTokenizerInspect(), newTokenizerEncode(), newTokenizerDecode())
	return c
}

// textFlags are the flags of commands that read a folder of text.
func textFlags(command *cobra.Command, c *data.TextConfig) {
	f := command.Flags()
	f.StringVar(&c.Path, "text", "", "folder of text")
	f.StringArrayVar(&c.Include, "include", []string{"**/*"}, "`pattern` of files to read; may be repeated")
	f.StringArrayVar(&c.Exclude, "exclude", nil, "`pattern` of files to leave out; may be repeated")
	jsonlFlags(command, c)
}

// jsonlFlags are the flags of commands that read text by line or row.
func jsonlFlags(command *cobra.Command, c *data.TextConfig) {
	f := command.Flags()
	f.StringArrayVar(&c.JSONL, "jsonl", nil, "`pattern` of files that are JSONL, besides *.jsonl; may be repeated")
	f.StringVar(&c.JSONLField, "jsonl-field", c.JSONLField, "field of a JSONL line, or column of a Parquet or Arrow file, that holds the text")
}

func newTokenizerTrain(a *app) *cobra.Command {
	text := data.DefaultConfig().Text
	var vocabSize int
	var out string
	c := &cobra.Command{
		Use:   "train",
		Short: "Train a byte-level BPE on a folder of text",
		Long: `Train a byte-level BPE on a folder of text, JSONL (plain, .gz or .zst), Parquet or Arrow,
and write it as tokenizer.json and tokenizer_config.json, which the Hugging Face
libraries read.`,
		Example: `  sambatrain tokenizer train --text books --vocab-size 32000 --out tokenizers/books`,
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.trainTokenizer(c, text, vocabSize, out)
		},
	}
	textFlags(c, &text)
	c.Flags().IntVar(&vocabSize, "vocab-size", 32000, "maximum number of ids of the tokenizer")
	c.Flags().StringVar(&out, "out", "", "folder to write")
	return c
}

// trainTokenizer trains a tokenizer on a folder of text and writes it to the folder out, which must
// not contain one.
func (a *app) trainTokenizer(c *cobra.Command, text data.TextConfig, vocabSize int, out string) error {
	if text.Path == "" {
		return &usageError{errors.New("--text: name the folder of text")}
	}
	if out == "" {
		return &usageError{errors.New("--out: name the folder to write")}
	}
	path := filepath.Join(out, "tokenizer.json")
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("--out: %s is there already: choose another folder or delete it", path)
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	tidy, err := makeFolder(out)
	if err != nil {
		return err
	}
	defer tidy()
	started := time.Now()
	ctx, stop := untilSignal(c.Context(), nil)
	defer stop()
	var read data.Progress
	now := everySecond()
	files, err := data.TrainTokenizer(ctx, text, vocabSize, func(p data.Progress) {
		read = p
		switch {
		case !now():
		case p.IDs > 0:
			log.Info("merging", "ids", p.IDs, "of", vocabSize)
		default:
			log.Info("counting words", "files", p.Files, "of", p.FilesTotal, "mb", p.Bytes/1e6)
		}
	})
	if err != nil {
		return flagNames(err)
	}
	// The tokenizer comes last: a folder that has one is complete.
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(name string) bool { return name == filepath.Base(path) })
	for _, name := range append(names, filepath.Base(path)) {
		if err := wholefile.Write(filepath.Join(out, name), files[name]); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	tok, err := data.NewTokenizer(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %d ids from %sB of text in %s\n", path, tok.VocabSize(), metric(float64(read.Bytes)), duration(time.Since(started)))
	return nil
}

// everySecond returns a function that returns true at most once per second, and not within the first
// second.
func everySecond() func() bool {
	last := time.Now()
	return func() bool {
		now := time.Now()
		if now.Sub(last) <= time.Second {
			return false
		}
		last = now
		return true
	}
}

func newTokenizerInspect() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:     "inspect TOKENIZER",
		Short:   "Describe a tokenizer: bytes, a tokenizer.json or a tokenizer.model",
		Example: "  sambatrain tokenizer inspect tokenizers/books/tokenizer.json",
		Args:    exactArgs("TOKENIZER"),
		RunE: func(c *cobra.Command, args []string) error {
			tok, err := data.NewTokenizer(args[0])
			if err != nil {
				return err
			}
			info := data.Describe(tok)
			return printResult(c, output, info, func(w io.Writer) error {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintf(t, "name\t%s\nfingerprint\t%s\nids\t%d\nend of text\t%d\n", info.Name, info.Fingerprint, info.VocabSize, info.EOS)
				return t.Flush()
			})
		},
	}
	outputFlag(c, &output)
	return c
}

// tokenizerAndInput returns the tokenizer of that name and all of the standard input.
func tokenizerAndInput(c *cobra.Command, name string) (data.Tokenizer, []byte, error) {
	tok, err := data.NewTokenizer(name)
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(c.InOrStdin())
	return tok, text, err
}

func newTokenizerEncode() *cobra.Command {
	return &cobra.Command{
		Use:     "encode TOKENIZER",
		Short:   "Print the token ids of the text on standard input, and the text of each",
		Example: `  echo 'Hello, world' | sambatrain tokenizer encode tokenizers/books/tokenizer.json`,
		Args:    exactArgs("TOKENIZER"),
		RunE: func(c *cobra.Command, args []string) error {
			tok, text, err := tokenizerAndInput(c, args[0])
			if err != nil {
				return err
			}
			ids, err := tok.Encode(nil, text)
			if err != nil {
				return err
			}
			var out strings.Builder
			for _, id := range ids {
				fmt.Fprintf(&out, "%d\t%q\n", id, tok.Decode(nil, []int32{id}))
			}
			_, err = io.WriteString(c.OutOrStdout(), out.String())
			return err
		},
	}
}

func newTokenizerDecode() *cobra.Command {
	return &cobra.Command{
		Use:   "decode TOKENIZER",
		Short: "Print the text of the token ids on standard input",
		Long: `Print the text of the token ids on standard input, byte for byte: no newline is added.
The ids are separated by white space or commas, or are lines of ` + "`tokenizer encode`" + `, whose texts
are not read. Special tokens, such as the end of text, have no text. What a tokenizer drops or
normalizes when it encodes does not come back.`,
		Example: `  echo 72,101,108,108,111 | sambatrain tokenizer decode bytes
  sambatrain tokenizer encode bytes <one.txt | sambatrain tokenizer decode bytes >two.txt`,
		Args: exactArgs("TOKENIZER"),
		RunE: func(c *cobra.Command, args []string) error {
			tok, text, err := tokenizerAndInput(c, args[0])
			if err != nil {
				return err
			}
			ids, err := readIDs(string(text), tok.VocabSize())
			if err != nil {
				return err
			}
			_, err = forPeople(c.OutOrStdout()).Write(tok.Decode(nil, ids))
			return err
		},
	}
}

// readIDs returns the token ids of a text, which must be below vocab: separated by white space or
// commas, or the lines of `tokenizer encode`.
func readIDs(text string, vocab int) ([]int32, error) {
	var ids []int32
	line := 0
	for l := range strings.Lines(text) {
		line++
		if id, spelt, ok := strings.Cut(l, "\t"); ok && strings.HasPrefix(spelt, `"`) {
			l = id
		}
		for _, word := range strings.FieldsFunc(l, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			id, err := strconv.ParseInt(word, 10, 32)
			if err != nil || id < 0 || id >= int64(vocab) {
				return nil, fmt.Errorf("standard input:%d: %q is not a token id: want 0 to %d", line, word, vocab-1)
			}
			ids = append(ids, int32(id))
		}
	}
	return ids, nil
}
