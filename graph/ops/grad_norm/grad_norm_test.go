package grad_norm_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/grad_norm"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestGradNorm(t *testing.T) { optest.Run(t, grad_norm.Cases()) }
