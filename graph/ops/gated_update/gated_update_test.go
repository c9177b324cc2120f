package gated_update_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/gated_update"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestGatedUpdate(t *testing.T) { optest.Run(t, gated_update.Cases()) }
