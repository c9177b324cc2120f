package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

func newGenerate(a *app) *cobra.Command {
	var prompt string
	var tokens, threads int
	var device, dtype string
	var s generate.SamplerConfig
	c := &cobra.Command{
		Use:   "generate RUN_DIR",
		Short: "Continue a prompt with a trained model",
		Long: `Continue a prompt with a run's newest good checkpoint. The recurrent state and the
attention window are carried along, so every token costs the same.`,
		Example: `  sambatrain generate runs/quickstart --prompt "func main() {" --tokens 200 --temperature 0.7`,
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if tokens < 1 {
				return &usageError{fmt.Errorf("--tokens: must be at least 1, is %d", tokens)}
			}
			if err := checkThreads(threads); err != nil {
				return err
			}
			log, err := a.logger()
			if err != nil {
				return err
			}
			sets := []string{fmt.Sprintf("run.threads=%d", threads)}
			if device != "" {
				sets = append(sets, "run.device="+device)
			}
			if dtype != "" {
				sets = append(sets, "run.dtype="+dtype)
			}
			m, err := train.LoadModel(args[0], log, sets...)
			if err != nil {
				return err
			}
			defer m.Close()
			s.Vocab = m.Tokenizer.VocabSize()
			sampler, err := generate.NewSampler(s)
			if err != nil {
				return &usageError{fmt.Errorf("--%w", err)}
			}
			ids := m.Tokenizer.Encode([]int32{m.Tokenizer.EOS()}, []byte(prompt))
			g, err := generate.New(m.Device, m.Memory, m.Model, generate.Config{Positions: len(ids) + tokens, Mixed: m.Recipe.Run.Mixed()})
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if _, err := fmt.Fprint(out, prompt); err != nil {
				return err
			}
			var failed error
			err = g.Continue(ids, tokens, m.Tokenizer.EOS(), sampler, func(token int32) bool {
				_, failed = out.Write(m.Tokenizer.Decode(nil, []int32{token}))
				return failed == nil
			})
			fmt.Fprintln(out)
			if err == nil {
				err = failed
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&prompt, "prompt", "", "text to continue; empty starts a new one")
	f.IntVar(&tokens, "tokens", 200, "how many tokens to generate at most")
	f.Float64Var(&s.Temperature, "temperature", 0.8, "randomness; 0 takes the likeliest token")
	f.IntVar(&s.TopK, "top-k", 0, "draw from the k likeliest tokens; 0 is all")
	f.Float64Var(&s.TopP, "top-p", 1, "draw from the likeliest tokens whose probabilities sum to p")
	f.Uint64Var(&s.Seed, "seed", 1, "seed of the draws")
	f.StringVar(&device, "device", "", "where to compute: "+strings.Join(recipes.Devices, ", ")+" (default: as it was trained)")
	f.StringVar(&dtype, "dtype", "", "type of computation: "+strings.Join(recipes.DTypes, ", ")+" (default: as it was trained)")
	f.IntVar(&threads, "threads", 0, "number of CPU workers; 0 is one a core")
	return c
}
