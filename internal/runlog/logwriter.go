package runlog

import (
	"io"
	"strings"
	"sync"
)

// LogWriter is the output of a logger that runs alongside a Console. While a console is open its
// lines are the console's notes, so that they don't break the progress bar; otherwise they go to
// out. Each Write must consist of complete lines, as log/slog's handlers guarantee.
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

// logged is a console that also shows a log.
type logged struct {
	Console
	log *LogWriter
}

func (c *logged) Close() {
	c.log.show(nil)
	c.Console.Close()
}
