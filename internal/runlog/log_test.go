package runlog

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestNewLogger(t *testing.T) {
	for _, c := range []struct {
		level, format string
		lines         []string // substrings of the lines, in order
	}{
		{"debug", "text", []string{"level=DEBUG msg=d", "level=INFO msg=i n=1 took=20ms", "level=WARN msg=w", "level=ERROR msg=e"}},
		{"info", "json", []string{`"level":"INFO","msg":"i","n":1,"took":"20ms"}`, `"level":"WARN","msg":"w"}`, `"level":"ERROR","msg":"e"}`}},
		{"warn", "text", []string{"level=WARN msg=w", "level=ERROR msg=e"}},
		{"error", "text", []string{"level=ERROR msg=e"}},
	} {
		var out bytes.Buffer
		log, err := NewLogger(&out, c.level, c.format)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("d")
		log.Info("i", "n", 1, "took", 20*time.Millisecond)
		log.Warn("w")
		log.Error("e")
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(got) != len(c.lines) {
			t.Errorf("%s %s: got %q", c.level, c.format, got)
			continue
		}
		for i, want := range c.lines {
			if !strings.HasSuffix(got[i], want) {
				t.Errorf("%s %s: line %d is %q, want it to end in %q", c.level, c.format, i+1, got[i], want)
			}
		}
	}
}

func TestNewLoggerRefuses(t *testing.T) {
	for _, c := range []struct{ level, format, want string }{
		{"loud", "text", `--log-level "loud": want debug, info, warn or error`},
		{"INFO", "text", `--log-level "INFO": want debug, info, warn or error`},
		{"info", "xml", `--log-format "xml": want text or json`},
	} {
		if _, err := NewLogger(nil, c.level, c.format); err == nil || err.Error() != c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	for _, level := range LogLevels {
		for _, format := range LogFormats {
			if _, err := NewLogger(&bytes.Buffer{}, level, format); err != nil {
				t.Errorf("offered but refused: %v", err)
			}
		}
	}
}
