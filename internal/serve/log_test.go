package serve

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestLogged: each request is logged with its status, and what the server failed at is a warning.
func TestLogged(t *testing.T) {
	for _, c := range []struct {
		handle http.HandlerFunc
		want   string
	}{
		{func(w http.ResponseWriter, _ *http.Request) { answer(w, 1) }, "level=DEBUG msg=request method=POST path=/p status=200 took=0s from="},
		{func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("streamed")) }, "level=DEBUG msg=request method=POST path=/p status=200 "},
		{func(w http.ResponseWriter, _ *http.Request) { fail(w, &apiError{status: http.StatusBadRequest}) }, "level=DEBUG msg=request method=POST path=/p status=400 "},
		{func(w http.ResponseWriter, _ *http.Request) { fail(w, errors.New("broken")) }, "level=WARN msg=request method=POST path=/p status=500 "},
	} {
		var out bytes.Buffer
		s := &Server{options: Options{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}}
		s.logged(c.handle).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/p", nil))
		if got := out.String(); !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("logged %q, want %q", got, c.want)
		}
	}
}
