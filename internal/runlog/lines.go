package runlog

import (
	"fmt"
	"io"
	"sync"
)

// lines is the Console for what is not a terminal: plain lines without escape codes.
type lines struct {
	mu      sync.Mutex
	w       io.Writer
	options ConsoleOptions
	json    bool // write the lines of metrics.jsonl
	speed   speed
	shown   bool // a training step has been shown
}

// NewLines returns a Console that writes plain lines to w: the first training step, those divisible
// by options.LogEvery, the last one, and every validation, event and note. Errors of w are ignored:
// training continues when nobody listens.
func NewLines(w io.Writer, options ConsoleOptions) Console { return newLines(w, options, false) }

// NewJSONLines is NewLines for programs: each line is the record as in metrics.jsonl. Notes, which
// a logger writes, should be JSON too.
func NewJSONLines(w io.Writer, options ConsoleOptions) Console {
	return newLines(w, options, true)
}

func newLines(w io.Writer, options ConsoleOptions, json bool) *lines {
	options.LogEvery = max(options.LogEvery, 1)
	return &lines{w: w, options: options, json: json}
}

func (l *lines) Step(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := l.options.Total
	if r.Kind == KindTrain {
		l.speed.add(r.Train.TokensPerSecond)
		if l.shown && r.Step%l.options.LogEvery != 0 && r.Step != total {
			return
		}
		l.shown = true
	}
	switch {
	case l.json:
		if line, err := r.MarshalJSON(); err == nil { // an invalid record ends the run when it is appended to its file
			fmt.Fprintf(l.w, "%s\n", line)
		}
		return
	case r.Kind != KindTrain:
		fmt.Fprintln(l.w, describe(r, total))
		return
	}
	t := r.Train
	fmt.Fprintf(l.w, "%s  loss %.4f  bpb %.4f  lr %.1e  norm %.2f  %s tok/s  eta %s\n",
		stepOf(r.Step, total), t.Loss, t.BitsPerByte, t.LR, t.GradNorm,
		Thousands(l.speed.mean()), formatETA(l.speed.eta(r, total)))
}

func (l *lines) Note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.w, text)
}

func (l *lines) Close() {}
