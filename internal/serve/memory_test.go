package serve

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
)

// scarce is a device with memory for a limited number of elements of a program's states.
type scarce struct {
	graph.Device
	states int
}

func (d scarce) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	if p.Sizes[graph.States] > d.states {
		return nil, &graph.MemoryError{Text: "no memory for that"}
	}
	return d.Device.Load(p, m)
}

// TestNoMemory: a text for which the device has no memory, for the prompt or for its continuation,
// fails alone. The others, and later ones, are answered.
func TestNoMemory(t *testing.T) {
	m := model(t)
	m.Model.Layers.Pattern[2].Mixer = "attn"
	const room = 2048
	plan, err := generate.Plan(m.Model, 2, 1, room, m.Precision)
	if err != nil {
		t.Fatal(err)
	}
	want := alone(t, m, "abc", 200)
	m.Device = scarce{m.Device, plan.Sizes[graph.States]}
	url, stop := running(t, m, func(o *Options) { o.Rows, o.Context, o.Chunk = 2, 8000, 64 })

	refused := func(body string) {
		t.Helper()
		status, text := post(t, url, body)
		if status != http.StatusInsufficientStorage || !strings.Contains(text, `"code":"insufficient_memory"`) || !strings.Contains(text, `"type":"server_error"`) || !strings.Contains(text, "no memory for that") {
			t.Errorf("%d %s, want 507", status, text)
		}
	}
	long := fmt.Sprintf(`"prompt": %q, "max_tokens": 400, "temperature": 0`, strings.Repeat("abcd", (room-100)/4))
	var all sync.WaitGroup
	all.Go(func() { refused(`{` + long + `}`) })
	all.Go(func() {
		if got := complete(t, url, `{"prompt": "abc", "max_tokens": 200, "temperature": 0}`); got.Choices[0].Text != want {
			t.Errorf("beside a text that fails: %q, want %q", got.Choices[0].Text, want)
		}
	})
	all.Go(func() { refused(fmt.Sprintf(`{"prompt": %q, "max_tokens": 1}`, strings.Repeat("x", 7000))) })
	all.Wait()
	if status, text := post(t, url, `{`+long+`, "stream": true}`); status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text), `"code":"insufficient_memory"}}`) {
		t.Errorf("streamed: %d ...%s", status, text[max(0, len(text)-300):])
	}
	if got := complete(t, url, `{"prompt": "abc", "max_tokens": 200, "temperature": 0}`); got.Choices[0].Text != want {
		t.Errorf("after texts that failed: %q, want %q", got.Choices[0].Text, want)
	}
	if err := stop(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
}
