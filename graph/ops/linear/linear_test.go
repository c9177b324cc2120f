package linear_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/causal_conv"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestLinear(t *testing.T) { optest.Run(t, linear.Cases()) }

func TestConvolved(t *testing.T) { optest.Run(t, linear.ConvolvedCases(causal_conv.CarrySpec())) }
