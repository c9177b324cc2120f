package accumulate_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/accumulate"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAccumulate(t *testing.T) { optest.Run(t, accumulate.Cases()) }
