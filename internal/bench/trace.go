package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// traceEvent is one entry of the Trace Event Format, which chrome://tracing and ui.perfetto.dev
// open: "X" is a span, "M" names a lane. Times are in microseconds.
type traceEvent struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"`
	Start    float64        `json:"ts"`
	Duration *float64       `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Lane     int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// Lane 0 shows the layers, and worker w has lane w+1.
const layerLane = 0

// writeTrace writes a recorder's events: a lane per worker with a span per call, and a lane of the
// layers that the calls belong to.
func writeTrace(w io.Writer, r *recorder) error {
	events := slices.Clone(r.events)
	slices.SortStableFunc(events, func(a, b event) int { return int(a.start - b.start) })
	lanes := r.threads() // including idle workers
	for _, e := range events {
		lanes = max(lanes, e.worker+1)
	}
	list := []traceEvent{
		{Name: "process_name", Phase: "M", Args: map[string]any{"name": r.Name()}},
		{Name: "thread_name", Phase: "M", Lane: layerLane, Args: map[string]any{"name": "layers"}},
	}
	for i := range lanes {
		name := fmt.Sprint("worker ", i)
		if r.threads() == 0 {
			name = "GPU"
		}
		list = append(list, traceEvent{Name: "thread_name", Phase: "M", Lane: i + 1, Args: map[string]any{"name": name}})
	}
	list = append(list, layerSpans(events)...)
	for _, e := range events {
		list = append(list, opSpan(e))
	}
	return json.NewEncoder(w).Encode(map[string]any{"displayTimeUnit": "ms", "traceEvents": list})
}

func span(name, phase string, start, end time.Duration, lane int) traceEvent {
	d := float64(end-start) / 1e3
	return traceEvent{Name: name, Category: phase, Phase: "X", Start: float64(start) / 1e3, Duration: &d, Lane: lane}
}

// opSpan is a worker's part of a call.
func opSpan(e event) traceEvent {
	s := span(e.step.Spec.Name, e.phase, e.start, e.end, e.worker+1)
	s.Args = map[string]any{"phase": e.phase}
	if e.step.Path != "" {
		s.Args["layer"] = e.step.Path
	}
	for _, o := range e.step.Resolved.In {
		s.Args[o.Name] = fmt.Sprint(o.Shape)
	}
	if e.step.Spec.Cost != nil {
		c := e.step.Spec.Cost(e.step.Dims)
		s.Args["call GFLOP"], s.Args["call MB"] = c.FLOPs/1e9, c.Bytes/1e6
	}
	return s
}

// layerSpans joins adjacent calls of the same layer. events are in order of time.
func layerSpans(events []event) []traceEvent {
	var list []traceEvent
	for i := 0; i < len(events); {
		first, end := events[i], events[i].end
		for ; i < len(events) && events[i].step.Path == first.step.Path && events[i].phase == first.phase; i++ {
			end = max(end, events[i].end)
		}
		name := first.step.Path
		if name == "" {
			name = first.phase
		}
		list = append(list, span(name, first.phase, first.start, end, layerLane))
	}
	return list
}
