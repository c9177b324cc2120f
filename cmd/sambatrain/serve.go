package main

import (
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/serve"
)

func newServe(a *app) *cobra.Command {
	var f modelFlags
	var o serve.Options
	var listen string
	c := &cobra.Command{
		Use:   "serve RUN_DIR",
		Short: "Serve a trained model over OpenAI's completions API",
		Long: `Answer POST /v1/completions (streaming, echo and logprobs too), GET /v1/models and
GET /health with a run's newest good checkpoint, for clients and evaluation harnesses of
that API. Concurrent requests are decoded as one batch.

A text prompt begins a document: the end-of-text token is put before it, as in training.
Token ids are used as given. POST /tokenize, POST /detokenize and GET /tokenizer_info are
vLLM's, for harnesses that count tokens with them; the end-of-text token is called
<|endoftext|> there, whatever the tokenizer calls it. docs/serve.md shows how to use it
with OpenAI's client and with lm-evaluation-harness.

There is no authentication and no encryption: the default address is only reachable from
this machine. SIGINT or SIGTERM finishes the running requests first. --log-level debug logs
every request.` + olderCheckpoint,
		Example: "  sambatrain serve runs/quickstart\n  curl localhost:8000/v1/completions -d '{\"prompt\": \"func main\", \"max_tokens\": 50}'",
		Args:    exactArgs("RUN_DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkServe(o); err != nil {
				return err
			}
			return a.serve(c, args[0], listen, f, o)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8000", "address to listen on; port 0 takes a free one")
	c.Flags().StringVar(&o.Name, "name", "", "model name that clients see (default: the recipe's name)")
	c.Flags().IntVar(&o.Rows, "batch", 8, "number of sequences decoded together")
	c.Flags().IntVar(&o.Queue, "queue", 64, "number of prompts that may wait; further ones get status 429")
	c.Flags().IntVar(&o.Context, "context", 32<<10, "maximum number of tokens of a prompt and its completion")
	c.Flags().IntVar(&o.Chunk, "chunk", generate.DefaultChunk, "number of tokens of a prompt computed at once")
	c.Flags().Int64Var(&o.Body, "max-body", 8<<20, "maximum size of a request, in bytes")
	c.Flags().DurationVar(&o.Grace, "grace", 30*time.Second, "how long running requests may take after a signal to stop")
	f.add(c)
	return c
}

// checkServe rejects impossible flag values.
func checkServe(o serve.Options) error {
	for _, n := range []struct {
		flag  string
		value int
	}{{"batch", o.Rows}, {"queue", o.Queue}, {"context", o.Context}, {"chunk", o.Chunk}, {"max-body", int(o.Body)}} {
		if n.value < 1 || n.value > serve.MaxOption {
			return &usageError{fmt.Errorf("--%s: must be 1 to %d, is %d", n.flag, serve.MaxOption, n.value)}
		}
	}
	if o.Grace < 0 {
		return &usageError{fmt.Errorf("--grace: must not be negative, is %v", o.Grace)}
	}
	return nil
}

// serve answers requests with a run's model until a signal arrives.
func (a *app) serve(c *cobra.Command, run, listen string, f modelFlags, o serve.Options) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	o.Log, o.Arrival = log, time.Minute
	ctx, stop := untilSignal(c.Context(), nil)
	defer stop()
	m, err := f.load(a, run)
	if err != nil {
		return err
	}
	defer m.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() {
		log.Warn("other machines can reach this address, and there is no authentication", "address", l.Addr().String())
	}
	if o.Name == "" {
		o.Name = m.Recipe.Name
	}
	return serve.New(m, o).Serve(ctx, l)
}
