package gated_head_norm_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/gated_head_norm"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestGatedHeadNorm(t *testing.T) { optest.Run(t, gated_head_norm.Cases()) }
