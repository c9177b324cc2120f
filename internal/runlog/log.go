package runlog

import (
	"fmt"
	"io"
	"log/slog"
)

// JSON is the --log-format for programs.
const JSON = "json"

// Values of the flags --log-level and --log-format, for help texts and completions.
var (
	LogLevels  = []string{"debug", "info", "warn", "error"}
	LogFormats = []string{"text", JSON}
)

var slogLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// NewLogger returns a logger that writes messages at `level` or above to w, as lines of text or
// JSON, without color. level and format are values of the flags --log-level and --log-format.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	lowest, ok := slogLevels[level]
	if !ok {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: lowest}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case JSON:
		options.ReplaceAttr = durationsAsText
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}

// durationsAsText gives durations their unit, as in lines of text; slog's JSON has nanoseconds.
func durationsAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
