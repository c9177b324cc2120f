package runlog

import (
	"io"
	"strings"
	"sync"
)

// LogWriter is what a logger writes to beside a Console: its lines are the console's notes
// while that is open, so that they don't break the progress bar, and go to out otherwise.
// Each Write must be of whole lines, as log/slog's handlers do.
type LogWriter struct {
	mu      sync.Mutex
	out     io.Writer
	console Console // nil while there is none
}

// NewLogWriter writes to out until there is a console.
func NewLogWriter(out io.Writer) *LogWriter { return &LogWriter{out: out} }

func (w *LogWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.console == nil {
		return w.out.Write(p)
	}
	w.console.Note(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// Over returns c, which shows the log until it is closed.
func (w *LogWriter) Over(c Console) Console {
	w.show(c)
	return &logged{c, w}
}

func (w *LogWriter) show(c Console) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.console = c
}

// logged is a console that shows a log, too.
type logged struct {
	Console
	log *LogWriter
}

func (c *logged) Close() {
	c.log.show(nil)
	c.Console.Close()
}
