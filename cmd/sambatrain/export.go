package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/convert"
	"github.com/sambatrain/sambatrain/internal/train"
)

func newExport(a *app) *cobra.Command {
	var out string
	o := convert.Options{}
	shard := byteSize(convert.DefaultMaxShard)
	c := &cobra.Command{
		Use:   "export RUN_DIR",
		Short: "Export a run's model for other programs",
		Long: `Write the model of a run's newest good checkpoint, and its tokenizer, to a folder:

  safetensors      this program's names and model section
  hf               Transformers' MambaForCausalLM, LlamaForCausalLM or MistralForCausalLM,
                   or flash-linear-attention's SambaForCausalLM, as the model is one of them
  samba-pth-names  safetensors with the names of the paper's own code
  gguf             llama.cpp's mamba or llama

A model that a format can't represent exactly is refused. docs/export.md shows how to load each.` + olderCheckpoint,
		Example: "  sambatrain export runs/quickstart --format hf --dtype bfloat16 --out exported",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return &usageError{fmt.Errorf("--out: name the folder to write")}
			}
			o.MaxShard = int64(shard)
			if err := o.Validate(); err != nil {
				return &usageError{fmt.Errorf("--%w", err)}
			}
			return a.export(c, args[0], out, o)
		},
	}
	f := c.Flags()
	f.StringVar((*string)(&o.Format), "format", string(convert.Safetensors), "layout: safetensors, hf, samba-pth-names or gguf")
	f.StringVar((*string)(&o.DType), "dtype", string(convert.Float32), "type of the weights: float32, bfloat16, float16, or q8_0 for gguf")
	offer(c, "format", names(convert.Formats))
	offer(c, "dtype", names(convert.DTypes))
	f.Var(&shard, "max-shard-size", "maximum size of a safetensors file, as in 500MB")
	f.StringVar(&out, "out", "", "folder to write; it must be empty or not exist")
	return c
}

// export writes a run's newest good checkpoint to out.
func (a *app) export(c *cobra.Command, run, out string, o convert.Options) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	r, newest, err := train.Newest(run, log)
	if err != nil {
		return err
	}
	tok, err := train.TokenizerOf(run, r)
	if err != nil {
		return err
	}
	parameters, err := newest.OpenModel()
	if err != nil {
		return err
	}
	defer parameters.Close()
	x, err := convert.Export(&convert.Source{
		Name: r.Name, Model: &r.Model, Parameters: parameters, Tokenizer: tok,
		SeqLen: r.Data.SeqLen, Step: newest.Step, CodeVersion: version(),
	}, out, o)
	if err != nil {
		return err
	}
	for _, note := range x.Notes {
		log.Info(note)
	}
	fmt.Fprintf(c.OutOrStdout(), "exported step %d of %s to %s, for %s\n", newest.Step, run, out, x.Class)
	return nil
}

func names[S ~string](list []S) []string {
	var out []string
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

// byteSize is a number of bytes as a flag: 800, 64KB, 1.5GB.
type byteSize int64

var byteUnits = []struct {
	name  string
	bytes float64
}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}}

func (b *byteSize) String() string {
	for _, u := range byteUnits {
		if float64(*b) >= u.bytes {
			return strconv.FormatFloat(float64(*b)/u.bytes, 'g', -1, 64) + u.name
		}
	}
	return "0B"
}

// Set implements pflag.Value.
func (b *byteSize) Set(text string) error {
	number, unit := strings.ToUpper(text), 1.0
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n*unit >= 1 && n*unit < 1<<62) {
		return errors.New("must be a number of bytes such as 500MB or 5GB")
	}
	*b = byteSize(n * unit)
	return nil
}

// Type implements pflag.Value.
func (b *byteSize) Type() string { return "size" }
