package round_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/round"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestRound(t *testing.T) { optest.Run(t, round.Cases()) }
