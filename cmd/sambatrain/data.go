package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
)

func newData(a *app) *cobra.Command {
	c := &cobra.Command{Use: "data", Short: "Make, describe and check token shards", Args: cobra.ArbitraryArgs}
	c.AddCommand(newDataPrepare(a), newDataInspect(), newDataVerify())
	return c
}

func newDataPrepare(a *app) *cobra.Command {
	config := data.DefaultConfig()
	c := &cobra.Command{
		Use:   "prepare",
		Short: "Tokenize a folder of text into Parquet token shards",
		Long: `Tokenize a folder of text, JSONL (plain, .gz or .zst), Parquet or Arrow into a folder
of Parquet token shards. A folder made with the same settings is left as it is; an
unfinished one is completed.`,
		Example: `  sambatrain data prepare --text books --include '**/*.txt.gz' --shards shards/books`,
		Args:    exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if len(config.Text.Validation) > 0 && c.Flags().Changed("validation-fraction") {
				return &usageError{errors.New("--validation-fraction: can't be given along with --validation: leave one of them out")}
			}
			return a.prepareData(c, config)
		},
	}
	f := c.Flags()
	textFlags(c, &config.Text)
	f.StringVar(&config.Shards, "shards", "", "folder of token shards to write")
	f.StringVar(&config.Tokenizer, "tokenizer", config.Tokenizer, "bytes, or the path of a tokenizer.json or tokenizer.model")
	f.Float64Var(&config.ValidationFraction, "validation-fraction", config.ValidationFraction, "share of documents kept out of training")
	f.StringArrayVar(&config.Text.Validation, "validation", nil, "`pattern` of files to validate on, instead of a share of all documents; may be repeated")
	return c
}

// prepareData makes token shards according to --text and --shards, and reports their contents.
func (a *app) prepareData(c *cobra.Command, config data.Config) error {
	if config.Text.Path == "" {
		return &usageError{errors.New("--text: name the folder of text")}
	}
	if config.Shards == "" {
		return &usageError{errors.New("--shards: name the folder to write")}
	}
	if err := config.Validate(); err != nil {
		return &usageError{flagNames(err)}
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	started := time.Now()
	ctx, stop := untilSignal(c.Context(), nil)
	defer stop()
	var done data.Progress
	now := everySecond()
	m, err := data.Prepare(ctx, config, func(p data.Progress) {
		done = p
		if now() {
			log.Info("preparing", "files", p.Files, "of", p.FilesTotal, "mb", p.Bytes/1e6,
				"mb_per_s", fmt.Sprintf("%.1f", float64(p.Bytes-p.Resumed)/1e6/time.Since(started).Seconds()))
		}
	})
	if errors.Is(err, context.Canceled) {
		return errGoesOn
	}
	if err != nil {
		return flagNames(err)
	}
	return preparedText(c.OutOrStdout(), config.Shards, m, done, time.Since(started))
}

// preparedText reports the contents of shards, and what this process read for them: nothing if they
// existed, a part if it completed them.
func preparedText(w io.Writer, shards string, m data.Manifest, done data.Progress, took time.Duration) error {
	text := fmt.Sprintf("%s: %s, %s for training; %s, %s for validation; %sB of text",
		shards, count(m.Train.Documents, "document"), count(m.Train.Tokens, "token"),
		count(m.Validation.Documents, "document"), count(m.Validation.Tokens, "token"), metric(float64(m.Train.Bytes+m.Validation.Bytes)))
	now := float64(done.Bytes - done.Resumed)
	if done.Resumed > 0 {
		text += fmt.Sprintf(", %sB of it now", metric(now))
	}
	if now > 0 {
		text += fmt.Sprintf(" in %s, %sB/s", duration(took), metric(now/took.Seconds()))
	} else {
		text += ", prepared before"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func newDataInspect() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:     "inspect SHARDS",
		Short:   "Describe a folder of token shards",
		Example: "  sambatrain data inspect runs/data/go-source",
		Args:    exactArgs("SHARDS"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := data.Inspect(args[0])
			if err != nil {
				return err
			}
			return printResult(c, output, r, r.WriteText)
		},
	}
	outputFlag(c, &output)
	return c
}
