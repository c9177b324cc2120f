package zero_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/zero"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestZero(t *testing.T) { optest.Run(t, zero.Cases()) }
