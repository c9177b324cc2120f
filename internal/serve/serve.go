// Package serve serves a trained model over OpenAI's completions API: the part of it that clients and
// evaluation harnesses use, with clear errors for the rest. Like vLLM, it also serves the model's
// tokenizer.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/plainjson"
	"github.com/sambatrain/sambatrain/internal/train"
)

// MaxOption is the largest value of a number in Options: for Context, one position is reserved for
// the end of text before a prompt.
const MaxOption = generate.MaxPositions - 1

// Options are a server's limits.
type Options struct {
	// Name is the name of the model for clients.
	Name string
	// Rows is the number of prompts that are continued together, and Chunk the number of tokens of
	// a prompt in one call.
	Rows, Chunk int
	// Queue is the number of further prompts that may wait; more are refused with 429.
	Queue int
	// Context is the maximum number of tokens of a prompt and its continuation.
	Context int
	// Body is the maximum number of bytes of a request.
	Body int64
	// Arrival is how long a request's body may take to arrive, and a client may take to accept an
	// answer or a part of it: one that doesn't would block others.
	Arrival time.Duration
	// Grace is how long requests in progress may take when the server is stopped.
	Grace time.Duration
	Log   *slog.Logger
}

// Server answers requests with one model.
type Server struct {
	model   *train.Model
	options Options
	name    string
	jobs    chan *job
	waiting atomic.Int64 // prompts accepted and not yet answered
	closing atomic.Bool
	created int64
}

// New makes a server. Serve runs it.
func New(m *train.Model, o Options) *Server {
	return &Server{model: m, options: o, name: o.Name, created: time.Now().Unix(), jobs: make(chan *job, o.Rows+o.Queue)}
}

// Serve answers on a listener until ctx ends; then it accepts no new requests, finishes those in
// progress, at most for the grace period, and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	c := generate.Config{
		Rows: s.options.Rows, Chunk: s.options.Chunk, Positions: s.options.Context + 1, Precision: s.model.Precision} // 1 for an end of text before
	if err := s.room(c); err != nil {
		return err
	}
	b, err := generate.NewBatch(s.model.Device, s.model.Memory, s.model.Model, c)
	if err != nil {
		return err
	}
	defer b.Close()
	s.options.Log.Info("serving", "model", s.name, "url", "http://"+l.Addr().String()+"/v1", "device", s.model.Device.Name())
	work, stopWork := context.WithCancel(context.Background())
	worker := make(chan error, 1)
	go func() { worker <- s.work(work, b) }()
	web := &http.Server{Handler: s.logged(s.Handler()), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()

	var result error
	select {
	case result = <-worker:
		worker <- nil
	case result = <-failed:
	case <-ctx.Done():
		s.closing.Store(true)
		s.options.Log.Info("stopping: finishing the running requests", "at_most", s.options.Grace)
		grace, cancel := context.WithTimeout(context.Background(), s.options.Grace)
		defer cancel()
		if err := web.Shutdown(grace); err != nil {
			s.options.Log.Warn("requests were cut off", "after", s.options.Grace)
		}
	}
	stopWork()
	web.Close()
	<-worker
	return result
}

// room returns an error if there is no memory for texts as long as clients are promised: one that
// grew too long would end all of them.
func (s *Server) room(c generate.Config) error {
	if err := generate.CheckRoom(s.model.Device, s.model.Model, c); err != nil {
		return fmt.Errorf("%d texts of %d tokens: %w; lower --context or --batch", c.Rows, s.options.Context, err)
	}
	return nil
}

// Handler answers the API's paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	paths := []struct {
		method, path string
		handle       http.HandlerFunc
	}{
		{"POST", "/v1/completions", s.completions},
		{"GET", "/v1/models", s.models},
		{"GET", "/v1/models/{name}", s.oneModel},
		{"GET", "/tokenizer_info", s.tokenizerInfo},
		{"POST", "/tokenize", s.tokenize},
		{"POST", "/detokenize", s.detokenize},
		{"GET", "/health", s.health},
		{"GET", "/healthz", s.health},
	}
	var names []string
	for _, p := range paths {
		mux.HandleFunc(p.method+" "+p.path, p.handle)
		mux.HandleFunc(p.path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", p.method)
			fail(w, &apiError{status: http.StatusMethodNotAllowed, Message: fmt.Sprintf("%s %s: this path takes %s", r.Method, r.URL.Path, p.method)})
		})
		names = append(names, p.path)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &apiError{status: http.StatusNotFound, Message: fmt.Sprintf("%s: no such path; there are %s", r.URL.Path, strings.Join(names, ", "))})
	})
	return mux
}

type modelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (s *Server) info() modelInfo { return modelInfo{s.name, "model", s.created, "sambatrain"} }

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"object": "list", "data": []modelInfo{s.info()}})
}

func (s *Server) oneModel(w http.ResponseWriter, r *http.Request) {
	if err := s.known(r.PathValue("name")); err != nil {
		fail(w, err)
		return
	}
	answer(w, s.info())
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.closing.Load() {
		fail(w, &apiError{status: http.StatusServiceUnavailable, Message: "the server is stopping"})
		return
	}
	answer(w, map[string]string{"status": "ok"})
}

// work continues texts until ctx ends: prompts join those in progress as soon as there is a row for
// them.
func (s *Server) work(ctx context.Context, b *generate.Batch) error {
	for {
		if b.Active() == 0 {
			select {
			case j := <-s.jobs:
				if err := j.add(b); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if b.Free() {
			select {
			case j := <-s.jobs:
				if err := j.add(b); err != nil {
					return err
				}
				continue
			default:
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := b.Step(); err != nil {
			return err
		}
	}
}

// job is one prompt.
type job struct {
	ctx     context.Context
	request generate.Request
	failed  func(error)
}

// add starts a job. Its own errors affect only the job; only those of the device end the work.
func (j *job) add(b *generate.Batch) error {
	err := b.Add(j.ctx, j.request)
	if err == nil {
		return nil
	}
	var memory *graph.MemoryError
	if errors.As(err, &memory) {
		j.failed(noMemory(err))
		return nil
	}
	j.failed(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// noMemory is the error for a text that the device has no memory for: full attention keeps all of
// it.
func noMemory(err error) error {
	code := "insufficient_memory"
	return &apiError{status: http.StatusInsufficientStorage, Code: &code, Message: fmt.Sprintf("the server has no memory for a text of this length beside the others; send a shorter one, or try again later: %v", err)}
}

// answer writes v. Values that JSON can't represent, such as NaN logits, are an error.
func answer(w http.ResponseWriter, v any) {
	text, err := plainjson.Line(v)
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusOK, text)
}

func write(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(text) // the client may be gone; there is nobody else to tell
}

// apiError is the API's form of an error.
type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`

	status int
}

func (e *apiError) Error() string { return e.Message }

// errorBody returns the API's form of any error. Those that are not an apiError are the server's
// own.
func errorBody(err error) map[string]*apiError {
	e := &apiError{status: http.StatusInternalServerError, Message: err.Error()}
	errors.As(err, &e)
	switch {
	case e.status == http.StatusTooManyRequests:
		e.Type = "rate_limit_error"
	case e.status < http.StatusInternalServerError:
		e.Type = "invalid_request_error"
	default:
		e.Type = "server_error"
	}
	return map[string]*apiError{"error": e}
}

func fail(w http.ResponseWriter, err error) {
	body := errorBody(err)
	text, err := plainjson.Line(body)
	if err != nil {
		text = nil // an apiError consists of strings
	}
	write(w, body["error"].status, text)
}
