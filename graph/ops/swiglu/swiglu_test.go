package swiglu_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/swiglu"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestSwiGLU(t *testing.T) { optest.Run(t, swiglu.Cases()) }
