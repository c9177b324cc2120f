package serve

import (
	"log/slog"
	"net/http"
	"time"
)

// logged logs each request when it has been answered: those that the server failed to answer as
// warnings, all others for debugging.
func (s *Server) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		level := slog.LevelDebug
		if seen.status >= http.StatusInternalServerError {
			level = slog.LevelWarn
		}
		s.options.Log.Log(r.Context(), level, "request", "method", r.Method, "path", r.URL.Path, "status", seen.status,
			"took", time.Since(started).Round(time.Millisecond), "from", r.RemoteAddr)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController flush the answer and set its deadlines.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
