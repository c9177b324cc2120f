package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
)

// generateOptions are the flags of generate.
type generateOptions struct {
	model        modelFlags
	prompts      []string
	files        []string
	tokens       int
	stops        []string
	echo         bool
	batch, chunk int
	output       outputForm
	sampler      generate.SamplerConfig
}

// generatedText is the result for one prompt.
type generatedText struct {
	Prompt string `json:"prompt"`
	// Text is the generated text, without the prompt, once it is complete.
	Text string `json:"text"`
	// PromptTokens counts the tokens of the prompt, without the end of text before it.
	PromptTokens int `json:"prompt_tokens"`
	Tokens       int `json:"tokens"`
	// TokenIDs are those tokens, including those of a --stop string. They preserve bytes that are
	// not characters, which JSON can't represent.
	TokenIDs     []int32 `json:"token_ids"`
	FinishReason string  `json:"finish_reason"`

	text  []byte // what there is of Text so far
	ended bool
}

func newGenerate(a *app) *cobra.Command {
	var o generateOptions
	c := &cobra.Command{
		Use:   "generate RUN_DIR",
		Short: "Continue prompts with a trained model",
		Long: `Continue one or more prompts with a run's newest good checkpoint. Text is streamed as it
is generated. The recurrent state and the attention window are carried along, so every
token costs the same. On a terminal, control characters are escaped, as in \x1b. In JSON,
invalid UTF-8 becomes U+FFFD; token_ids are exactly what was generated.` + olderCheckpoint,
		Example: `  sambatrain generate runs/quickstart --prompt "func main() {" --tokens 200 --temperature 0.7
  cat main.go | sambatrain generate runs/quickstart --prompt-file - --stop "}"
  sambatrain generate runs/quickstart --prompt "type A" --prompt "type B" --output json`,
		Args: exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error { return a.generate(c, args[0], &o) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.prompts, "prompt", nil, "`text` to continue; may be repeated; without a prompt, a new text is generated")
	f.StringArrayVar(&o.files, "prompt-file", nil, "`file` with a text to continue, - for standard input; may be repeated")
	f.IntVar(&o.tokens, "tokens", 200, "maximum number of tokens to generate")
	f.StringArrayVar(&o.stops, "stop", nil, "`string` that ends the text, itself left out; may be repeated")
	f.BoolVar(&o.echo, "echo", true, "write the prompt before its continuation")
	f.IntVar(&o.batch, "batch", 8, "maximum number of prompts decoded together")
	f.IntVar(&o.chunk, "chunk", generate.DefaultChunk, "number of tokens of a prompt computed at once")
	f.Float64Var(&o.sampler.Temperature, "temperature", 0.8, "sampling temperature; 0 takes the most likely token")
	f.IntVar(&o.sampler.TopK, "top-k", 0, "sample from the k most likely tokens; 0 means all")
	f.Float64Var(&o.sampler.TopP, "top-p", 1, "sample from the most likely tokens whose probabilities sum to p")
	f.Uint64Var(&o.sampler.Seed, "seed", 1, "seed of the sampling; the second prompt uses the seed plus one, and so on")
	o.model.add(c)
	outputFlag(c, &o.output)
	return c
}

func (a *app) generate(c *cobra.Command, run string, o *generateOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	prompts, err := o.read(c.InOrStdin())
	if err != nil {
		return err
	}
	m, err := o.model.load(a, run)
	if err != nil {
		return err
	}
	defer m.Close()
	out := &textWriter{w: c.OutOrStdout(), echo: o.echo, output: o.output}
	reading := runlog.NewCounter(os.Stderr, "of the prompt")
	defer reading.Clear()
	var list []generate.Request
	longest := 0
	for i, prompt := range prompts {
		ids, err := m.Tokenizer.Encode([]int32{m.Tokenizer.EOS()}, []byte(prompt))
		if err != nil {
			return err
		}
		longest = max(longest, len(ids)+o.tokens)
		q, err := o.request(m, i, ids, out.add(prompt, len(ids)-1), out)
		if err != nil {
			return err
		}
		q.Progress = promptProgress(reading, out, len(ids))
		list = append(list, q)
	}
	b, err := generate.NewBatch(m.Device, m.Memory, m.Model, generate.Config{
		Rows: min(o.batch, len(prompts)), Chunk: o.chunk, Positions: longest, Precision: m.Precision})
	if err != nil {
		return err
	}
	defer b.Close()
	if o.output == outputText {
		out.w = forPeople(out.w)
	}
	if err := b.Run(c.Context(), list); err != nil {
		return errors.Join(err, out.err)
	}
	return out.finish()
}

// promptProgress returns the Progress of a request, which shows how much of a long prompt has been
// read: the bar on a terminal, and log lines elsewhere.
func promptProgress(bar *runlog.Counter, out *textWriter, tokens int) func(done int) {
	if bar.Shows() {
		return func(done int) {
			if !out.onScreen() {
				bar.Set(done, tokens)
			}
		}
	}
	var log func(done, total int64)
	return func(done int) {
		if done == 0 { // earlier prompts have been read
			log = progress("reading the prompt", "tokens")
		}
		log(int64(done), int64(tokens))
	}
}

func (o *generateOptions) check() error {
	for _, n := range []struct {
		flag  string
		value int
	}{{"tokens", o.tokens}, {"batch", o.batch}, {"chunk", o.chunk}} {
		if n.value < 1 {
			return &usageError{fmt.Errorf("--%s: must be at least 1, is %d", n.flag, n.value)}
		}
	}
	if o.tokens > generate.MaxPositions {
		return &usageError{fmt.Errorf("--tokens: must be at most %d, is %d", generate.MaxPositions, o.tokens)}
	}
	if slices.Contains(o.stops, "") {
		return &usageError{errors.New("--stop: an empty string would end every text at once; leave it out")}
	}
	s := o.sampler
	s.Vocab = 1
	if _, err := generate.NewSampler(s); err != nil {
		return &usageError{fmt.Errorf("--%w", err)}
	}
	return nil
}

// read collects the prompts: those on the command line, then those in files.
func (o *generateOptions) read(stdin io.Reader) ([]string, error) {
	prompts, piped := o.prompts, false
	for _, file := range o.files {
		var text []byte
		var err error
		if file == "-" {
			if piped {
				return nil, &usageError{errors.New("--prompt-file: standard input, -, can be read once")}
			}
			piped = true
			text, err = io.ReadAll(stdin)
		} else {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("--prompt-file: %w", err)
		}
		if format := data.NotText(text); format != "" {
			return nil, fmt.Errorf("--prompt-file: %s: is %s, not text: unpack it, and name the text", file, format)
		}
		prompts = append(prompts, string(text))
	}
	if len(prompts) == 0 {
		prompts = []string{""}
	}
	return prompts, nil
}

// request returns the request for prompt i, whose continuation goes to text.
func (o *generateOptions) request(m *train.Model, i int, ids []int32, text *generatedText, out *textWriter) (generate.Request, error) {
	s := o.sampler
	s.Vocab, s.Seed = m.Tokenizer.VocabSize(), s.Seed+uint64(i)
	sampler, err := generate.NewSampler(s)
	stream := generate.NewStream(m.Tokenizer.Decode, ids, o.stops)
	return generate.Request{
		Prompt: ids, Tokens: o.tokens, EOS: m.Tokenizer.EOS(), Sampler: sampler,
		Emit: func(token int32, _ []float32) bool {
			text.Tokens++
			text.TokenIDs = append(text.TokenIDs, token)
			more, stopped := stream.Push(token)
			if text.Tokens == o.tokens && !stopped {
				text.FinishReason = "length"
			}
			out.write(text, more)
			return !stopped && out.err == nil
		},
		End: func() {
			text.ended = true
			out.write(text, stream.Rest())
		},
	}, err
}

// textWriter writes texts in the order of their prompts: the first unfinished one as it arrives,
// the later ones in their turn.
type textWriter struct {
	w       io.Writer
	echo    bool
	output  outputForm
	texts   []*generatedText
	begun   bool
	turn    int
	written int // bytes of the current text
	err     error
}

func (t *textWriter) add(prompt string, tokens int) *generatedText {
	g := &generatedText{Prompt: prompt, PromptTokens: tokens, TokenIDs: []int32{}, FinishReason: "stop"}
	t.texts = append(t.texts, g)
	return g
}

// onScreen reports whether text is shown on a terminal, where a progress bar would overwrite it.
func (t *textWriter) onScreen() bool {
	_, terminal := t.w.(shown)
	return terminal && t.begun
}

// start writes what comes before the current text.
func (t *textWriter) start() {
	g := t.texts[t.turn]
	if len(t.texts) > 1 {
		t.print(fmt.Sprintf("--- prompt %d ---\n", t.turn+1))
	}
	if t.echo {
		t.print(g.Prompt)
	}
}

func (t *textWriter) print(s string) {
	if t.err == nil && s != "" {
		_, t.err = io.WriteString(t.w, s)
	}
}

// write adds to a text.
func (t *textWriter) write(g *generatedText, more []byte) {
	g.text = append(g.text, more...)
	if !t.begun && t.output == outputText {
		t.begun = true
		t.start()
	}
	for t.turn < len(t.texts) {
		now := t.texts[t.turn]
		if t.output == outputText {
			t.print(string(now.text[t.written:]))
			t.written = len(now.text)
		}
		if !now.ended {
			return
		}
		t.turn, t.written = t.turn+1, 0
		if t.output == outputText {
			t.print("\n")
			if t.turn < len(t.texts) {
				t.start()
			}
		}
	}
}

// finish writes JSON, once all texts are complete.
func (t *textWriter) finish() error {
	if t.err == nil && t.output == outputJSON {
		for _, g := range t.texts {
			g.Text = string(g.text)
		}
		t.err = writeJSON(t.w, t.texts)
	}
	return t.err
}
