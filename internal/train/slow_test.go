package train

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSlow(t *testing.T) {
	for took, want := range map[time.Duration]int{9 * time.Second: 0, 11 * time.Second: 1, 69 * time.Second: 1, 131 * time.Second: 3} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			done := slow(slog.New(slog.NewTextHandler(&out, nil)), "reading")
			time.Sleep(took)
			done()
			synctest.Wait()
			if got := strings.Count(out.String(), "msg=reading "); got != want {
				t.Errorf("after %v: %q, want %d lines", took, &out, want)
			}
		})
	}
}
