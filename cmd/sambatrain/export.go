package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newExport(a *app) *cobra.Command {
	var format, out string
	c := &cobra.Command{
		Use:     "export RUN_DIR",
		Short:   "Write a run's model for other programs",
		Long:    "Write the model of a run's newest good checkpoint to a folder: model.safetensors,\nconfig.json and the tokenizer's files.",
		Example: "  sambatrain export runs/quickstart --format safetensors --out exported",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return &usageError{fmt.Errorf("--out: name the folder to write")}
			}
			if format != string(checkpoint.FormatSafetensors) {
				return &usageError{fmt.Errorf("--format: must be %s, is %q", checkpoint.FormatSafetensors, format)}
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			r, newest, err := train.Newest(args[0], log)
			if err != nil {
				return err
			}
			tok, err := data.NewTokenizer(r.Data.Tokenizer)
			if err != nil {
				return err
			}
			config, err := json.MarshalIndent(struct {
				ModelType string `json:"model_type"`
				Version   string `json:"sambatrain_version"`
				Step      int64  `json:"step"`
				Model     any    `json:"model"`
				EOS       int32  `json:"eos_token_id"`
				DType     string `json:"dtype"`
			}{"sambatrain", version(), newest.State.Step, r.Model, tok.EOS(), "float32"}, "", "  ")
			if err != nil {
				return err
			}
			err = checkpoint.Export(newest, out, checkpoint.ExportOptions{
				Format: checkpoint.Format(format), DType: safetensors.F32, Config: append(config, '\n'), Files: tok.ExportFiles()})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "exported step %d of %s to %s\n", newest.State.Step, args[0], out)
			return nil
		},
	}
	c.Flags().StringVar(&format, "format", string(checkpoint.FormatSafetensors), "layout: safetensors")
	c.Flags().StringVar(&out, "out", "", "folder to write; it must be empty or not exist")
	return c
}
