package rms_norm_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/rms_norm"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestRMSNorm(t *testing.T) { optest.Run(t, rms_norm.Cases()) }
