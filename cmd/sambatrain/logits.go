package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newLogits(a *app) *cobra.Command {
	var prompt, out string
	var tokens []int32
	c := &cobra.Command{
		Use:   "logits RUN_DIR",
		Short: "Write a model's logits for given tokens, to check other programs against",
		Long: `Run a run's newest good checkpoint over some tokens, and write them and the next-token
logits at each to a safetensors file: tokens [T], logits [T V].` + olderCheckpoint,
		Example: `  sambatrain logits runs/quickstart --prompt "func main() {" --out expected.safetensors`,
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case out == "":
				return &usageError{errors.New("--out: name the file to write")}
			case (prompt == "") == (len(tokens) == 0):
				return &usageError{errors.New("--prompt: give a text, or --tokens")}
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			m, err := train.LoadModel(args[0], log)
			if err != nil {
				return err
			}
			defer m.Close()
			if prompt != "" {
				if tokens, err = m.Tokenizer.Encode([]int32{m.Tokenizer.EOS()}, []byte(prompt)); err != nil {
					return err
				}
			}
			for _, id := range tokens {
				if id < 0 || int(id) >= m.Model.VocabSize {
					return &usageError{fmt.Errorf("--tokens: %d is not in a vocabulary of %d", id, m.Model.VocabSize)}
				}
			}
			logits, err := m.Logits(tokens)
			if err != nil {
				return err
			}
			if err := writeLogits(out, tokens, logits); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: the logits of step %d of %s for %s\n", out, m.Checkpoint.Step, args[0], count(int64(len(tokens)), "token"))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&prompt, "prompt", "", "text; the end-of-text token is put before it, as in training")
	f.Int32SliceVar(&tokens, "tokens", nil, "`tokens` instead of a text, as in 256,72,105")
	f.StringVar(&out, "out", "", "file to write")
	return c
}

// writeLogits writes a file that is either complete or absent.
func writeLogits(path string, tokens []int32, logits []float32) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	err = errors.Join(writeScores(f, tokens, logits), f.Close())
	if err == nil {
		return nil
	}
	if info, statErr := os.Stat(path); statErr == nil && info.Mode().IsRegular() {
		os.Remove(path)
	}
	return fmt.Errorf("--out: %w", err)
}

func writeScores(f io.Writer, tokens []int32, logits []float32) error {
	t := len(tokens)
	w, err := safetensors.NewWriter(f, []safetensors.Entry{
		{Name: "tokens", DType: safetensors.I32, Shape: []int{t}},
		{Name: "logits", DType: safetensors.F32, Shape: []int{t, len(logits) / t}},
	}, nil)
	if err != nil {
		return err
	}
	for _, e := range w.Entries() {
		if e.Name == "tokens" {
			err = w.WriteInt32(e.Name, tokens)
		} else {
			err = w.WriteFloat32(e.Name, logits)
		}
		if err != nil {
			return err
		}
	}
	return w.Finish()
}
