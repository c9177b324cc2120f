package silu_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/silu"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestSiLU(t *testing.T) { optest.Run(t, silu.Cases()) }
