package sample_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestSample(t *testing.T) { optest.Run(t, sample.Cases()) }

func TestRefused(t *testing.T) {
	for _, n := range []int{0, 6} {
		_, err := sample.Spec(n).Resolve([]graph.Shape{{2, 1, 5}, {2, sample.Words}, {2, 1}})
		if err == nil || !strings.Contains(err.Error(), "of 5") {
			t.Errorf("%d tokens: %v", n, err)
		}
	}
}
