package runlog

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func trainAt(step int, tokensPerSecond float64) Record {
	return TrainRecord(step, noon, Train{
		Loss: 2.31449, BitsPerByte: 3.33911, LR: 3.9e-4, GradNorm: 0.9125,
		Tokens: int64(step) * 1600, TokensPerSecond: tokensPerSecond,
	})
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	c := NewLines(&out, ConsoleOptions{Total: 600, LogEvery: 60})
	c.Note("model 4.1M parameters")
	c.Step(EventRecord(58, noon, EventResumed, "checkpoints/step-58"))
	for step := 59; step <= 600; step++ {
		c.Step(trainAt(step, 12345))
		if step == 120 {
			c.Step(ValRecord(120, noon, Val{Loss: 2.25, BitsPerByte: 3.24604, Longer: []ValAt{{Times: 4, Loss: 2.5}},
				BySource: []ValOf{{Name: "books", Loss: 2.75}, {Name: "code", Loss: 1.5}},
				Sources:  []Source{{Name: "books", Epochs: 0.125}, {Name: "code", Epochs: 1.5}}}))
		}
	}
	c.Step(EventRecord(600, noon, EventStopped, ""))
	c.Close()
	const want = `model 4.1M parameters
step  58/600  resumed  checkpoints/step-58
step  59/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 1m10s
step  60/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 1m10s
step 120/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 1m02s
step 120/600  val_loss 2.2500  val_bpb 3.2460  @4x 2.5000  @books 2.7500  @code 1.5000  epochs@books 0.125  epochs@code 1.5
step 180/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 54s
step 240/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 47s
step 300/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 39s
step 360/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 31s
step 420/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 23s
step 480/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 16s
step 540/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 8s
step 600/600  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  12,345 tok/s  eta 0s
step 600/600  stopped
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLinesShowTheLastStep(t *testing.T) {
	var out bytes.Buffer
	c := NewLines(&out, ConsoleOptions{Total: 7, LogEvery: 5})
	for step := 1; step <= 7; step++ {
		c.Step(trainAt(step, 100))
	}
	var steps []string
	for l := range strings.Lines(out.String()) {
		steps = append(steps, strings.Fields(l)[1])
	}
	if got, want := strings.Join(steps, " "), "1/7 5/7 7/7"; got != want {
		t.Errorf("shown %s, want %s", got, want)
	}
}

func TestSpeed(t *testing.T) {
	var s speed
	if s.mean() != 0 {
		t.Errorf("mean of nothing is %g", s.mean())
	}
	for _, c := range []struct{ add, mean float64 }{
		{1000, 1000}, // not pulled towards zero
		{3000, (0.95*1000 + 3000) / 1.95},
		{math.Inf(1), (0.95*1000 + 3000) / 1.95},
		{math.NaN(), (0.95*1000 + 3000) / 1.95},
		{2000, (0.95*0.95*1000 + 0.95*3000 + 2000) / (0.95*0.95 + 0.95 + 1)},
	} {
		s.add(c.add)
		if got := s.mean(); math.Abs(got-c.mean) > 1e-9 {
			t.Errorf("after %g the mean is %g, want %g", c.add, got, c.mean)
		}
	}
}

func TestETA(t *testing.T) {
	for _, c := range []struct {
		r     Record
		total int
		want  string
	}{
		{trainAt(100, 1600), 142, "42s"},
		{trainAt(100, 1600), 100, "0s"},
		{trainAt(100, 1600), 159, "59s"},
		{trainAt(100, 1600), 160, "1m00s"},
		{trainAt(100, 1600), 100 + 3599, "59m59s"},
		{trainAt(100, 1600), 100 + 2*3600 + 5*60 + 40, "2h05m"},
		{trainAt(100, 1600), 100 + 3*86400 + 4*3600, "3d04h"},
		{trainAt(100, 0), 200, "?"},
		{trainAt(100, 0), 100, "?"},
		{trainAt(100, 1e-300), 200, "?"},
		{trainAt(100, 1600), 0, "?"},
		{trainAt(0, 1600), 100, "?"},
	} {
		var s speed
		s.add(c.r.Train.TokensPerSecond)
		if got := formatETA(s.eta(c.r, c.total)); got != c.want {
			t.Errorf("step %d/%d at %g tok/s: eta %s, want %s", c.r.Step, c.total, c.r.Train.TokensPerSecond, got, c.want)
		}
	}
}

func TestThousands(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.4: "0", -0.4: "0", 12: "12", 999.4: "999", 999.5: "1,000", 12345: "12,345",
		123456: "123,456", 1234567.2: "1,234,567", -1234: "-1,234", 1e12: "1,000,000,000,000",
	} {
		if got := Thousands(x); got != want {
			t.Errorf("%g is written %s, want %s", x, got, want)
		}
	}
}

func TestWantsBar(t *testing.T) {
	for _, c := range []struct {
		terminal bool
		total    int
		term     string
		want     bool
	}{
		{true, 100, "xterm-256color", true},
		{true, 100, "", true},
		{false, 100, "xterm-256color", false},
		{true, 100, "dumb", false},
		{true, 0, "xterm", false},
	} {
		getenv := func(key string) string { return map[string]string{"TERM": c.term}[key] }
		if got := wantsBar(c.terminal, c.total, getenv); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// A file is not a terminal: it gets no bar and no escape codes.
func TestNewConsoleOnFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	c := NewConsole(f, ConsoleOptions{Total: 10})
	c.Step(trainAt(1, 1600))
	c.Close()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want := "step  1/10  loss 2.3145  bpb 3.3391  lr 3.9e-04  norm 0.91  1,600 tok/s  eta 9s\n"
	if got := readText(t, f.Name()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// screen returns what a terminal shows after out: \r, "\x1b[2K" and "\x1b[0K" are interpreted,
// color is dropped.
func screen(t *testing.T, out string) []string {
	t.Helper()
	out = regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(out, "")
	var rows []string
	var row []rune
	col := 0
	for out != "" {
		switch {
		case strings.HasPrefix(out, "\x1b[2K"):
			out, row = out[4:], nil
			continue
		case strings.HasPrefix(out, "\x1b[0K"):
			out, row = out[4:], row[:min(col, len(row))]
			continue
		}
		r := []rune(out)[0]
		out = out[len(string(r)):]
		switch r {
		case '\r':
			col = 0
		case '\n':
			rows = append(rows, strings.TrimRight(string(row), " "))
			row, col = nil, 0
		case '\x1b':
			t.Fatalf("unknown escape code before %q", out)
		default:
			for len(row) <= col {
				row = append(row, ' ')
			}
			row[col] = r
			col++
		}
	}
	return append(rows, strings.TrimRight(string(row), " "))
}

func TestBar(t *testing.T) {
	for name, style := range map[string]barStyle{
		"plain":          {},
		"escape codes":   {ansi: true},
		"and with color": {ansi: true, color: true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			style.width = func() int { return 120 }
			c := newBar(&out, ConsoleOptions{Total: 12}, style)
			c.Note("hello")
			c.Step(trainAt(6, 1600))
			c.Step(ValRecord(6, noon, Val{Loss: 2.25, BitsPerByte: 3.24604}))
			c.Step(trainAt(9, 1600))
			c.Note("a note\nof two lines")

			now := screen(t, out.String())
			want := []string{
				"hello",
				"step  6/12  val_loss 2.2500  val_bpb 3.2460",
				"a note",
				"of two lines",
				"  75% |████████████    | (9/12) loss 2.3145  bpb 3.3391  1,600 tok/s  eta 3s",
			}
			if got := strings.Join(now, "\n"); got != strings.Join(want, "\n") {
				t.Errorf("on the screen\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}

			c.Step(trainAt(12, 1600))
			c.Note("after the end")
			c.Close()
			want = append(want[:4],
				" 100% |████████████████| (12/12) loss 2.3145  bpb 3.3391  1,600 tok/s  eta 0s",
				"after the end",
				"")
			if got := strings.Join(screen(t, out.String()), "\n"); got != strings.Join(want, "\n") {
				t.Errorf("at the end\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			if got := strings.Contains(out.String(), "\x1b[32m"); got != style.color {
				t.Errorf("color written: %v, want %v", got, style.color)
			}
			if got := strings.Contains(out.String(), "\x1b"); got != style.ansi {
				t.Errorf("escape codes written: %v, want %v", got, style.ansi)
			}
		})
	}
}

func TestBarCloses(t *testing.T) {
	for name, steps := range map[string]int{"before the first step": 0, "in the midst": 5, "at the end": 10} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c := newBar(&out, ConsoleOptions{Total: 10}, barStyle{ansi: true, width: func() int { return 80 }})
			for step := 1; step <= steps; step++ {
				c.Step(trainAt(step, 1600))
			}
			c.Close()
			rows := screen(t, out.String())
			if want := min(steps, 1) + 1; len(rows) != want || rows[len(rows)-1] != "" {
				t.Errorf("%d rows %q, want %d and the last one empty", len(rows), rows, want)
			}
		})
	}
}

// Between two redraws less than style.every apart nothing is written, and Close shows the last
// step.
func TestBarThrottle(t *testing.T) {
	var out bytes.Buffer
	c := newBar(&out, ConsoleOptions{Total: 100}, barStyle{ansi: true, width: func() int { return 120 }, every: time.Hour})
	c.Step(trainAt(1, 1600))
	drawn := out.Len()
	for step := 2; step <= 50; step++ {
		c.Step(trainAt(step, 1600))
	}
	if out.Len() != drawn {
		t.Errorf("drew %q", out.String()[drawn:])
	}
	c.Close()
	want := "  50% |████████        | (50/100) loss 2.3145  bpb 3.3391  1,600 tok/s  eta 50s"
	if rows := screen(t, out.String()); rows[0] != want {
		t.Errorf("Close leaves\n%s\nwant\n%s", rows[0], want)
	}
}

func TestBarShowsTheLastStepAtOnce(t *testing.T) {
	var out bytes.Buffer
	c := newBar(&out, ConsoleOptions{Total: 100}, barStyle{ansi: true, width: func() int { return 120 }, every: time.Hour})
	c.Step(trainAt(99, 1600))
	c.Step(trainAt(100, 1600))
	if rows := screen(t, out.String()); !strings.Contains(rows[0], "(100/100)") {
		t.Errorf("after the last step: %q", rows[0])
	}
}

func TestBarFitsTheTerminal(t *testing.T) {
	for width, want := range map[int]string{
		200: "loss 2.3145  bpb 3.3391  1,600 tok/s  eta 50s",
		80:  "loss 2.3145  1,600 tok/s  eta 50s",
		70:  "loss 2.3145  eta 50s",
		55:  "loss 2.3145",
		10:  "loss 2.3145",
	} {
		var out bytes.Buffer
		c := newBar(&out, ConsoleOptions{Total: 100}, barStyle{ansi: true, width: func() int { return width }})
		c.Step(trainAt(50, 1600))
		row := screen(t, out.String())[0]
		if !strings.HasSuffix(row, ") "+want) {
			t.Errorf("on %d columns: %q, want it to end in %q", width, row, want)
		}
		if n := len([]rune(row)); n >= width && width >= 55 {
			t.Errorf("%d columns on a terminal of %d", n, width)
		}
	}
}

func TestLogWriter(t *testing.T) {
	var out bytes.Buffer
	w := NewLogWriter(&out)
	log, err := NewLogger(w, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("no checkpoint yet")
	c := w.Over(newBar(&out, ConsoleOptions{Total: 10}, barStyle{ansi: true, width: func() int { return 120 }}))
	c.Step(trainAt(5, 1600))
	log.Warn("checkpoint is damaged", slog.Int("step", 4))
	c.Close()
	log.Info("bye")
	rows := screen(t, out.String())
	for i, want := range []string{`msg="no checkpoint yet"`, `level=WARN msg="checkpoint is damaged" step=4`, "(5/10)", "msg=bye"} {
		if i >= len(rows) || !strings.Contains(rows[i], want) {
			t.Fatalf("on the screen %q, want %s in row %d", rows, want, i)
		}
	}
}
