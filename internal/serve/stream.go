package serve

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sambatrain/sambatrain/internal/plainjson"
)

// parts are the parts of a streamed answer that are still to be sent. The worker never waits for a
// client to accept them.
type parts struct {
	more chan struct{} // there is something to take

	mu   sync.Mutex
	list []choice
	err  error
}

func newParts() *parts { return &parts{more: make(chan struct{}, 1)} }

func (p *parts) put(c choice) {
	p.mu.Lock()
	p.list = append(p.list, c)
	p.mu.Unlock()
	p.tell()
}

func (p *parts) fail(err error) {
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	p.tell()
}

func (p *parts) tell() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (p *parts) take() ([]choice, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list, p.err
}

// streamed sends texts as they are generated, as server-sent events. Several texts are interleaved,
// each with its index.
func (s *Server) streamed(w http.ResponseWriter, r *http.Request, q *completionRequest, c completion, texts []*text) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	out := http.NewResponseController(w)
	send := func(v any) error {
		line, err := plainjson.Line(v)
		if err != nil {
			return err
		}
		out.SetWriteDeadline(time.Now().Add(s.options.Arrival))
		fmt.Fprintf(w, "data: %s\n", line)
		return out.Flush()
	}
	for left := len(texts); left > 0; {
		select {
		case <-texts[0].parts.more:
		case <-r.Context().Done():
			return
		}
		list, err := texts[0].parts.take()
		for _, part := range list {
			if part.FinishReason != nil {
				left--
			}
			c.Choices = []choice{part}
			if err == nil {
				err = send(c)
			}
		}
		if err != nil {
			send(errorBody(err))
			return
		}
	}
	if q.StreamOptions != nil && q.StreamOptions.IncludeUsage {
		c.Choices, c.Usage = []choice{}, used(texts)
		send(c)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
	out.Flush()
}
