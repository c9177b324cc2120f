package log_gate_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/log_gate"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestLogGate(t *testing.T) { optest.Run(t, log_gate.Cases()) }

func TestRefused(t *testing.T) {
	_, err := log_gate.Spec(0).Resolve([]graph.Shape{{1, 2, 3}, {3}})
	if err == nil || !strings.Contains(err.Error(), "normalizer is 0") {
		t.Errorf("got %v", err)
	}
}
