package linear_swiglu_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/linear_swiglu"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestLinearSwiGLU(t *testing.T) { optest.Run(t, linear_swiglu.Cases()) }
