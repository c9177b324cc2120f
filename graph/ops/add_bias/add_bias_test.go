package add_bias_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/add_bias"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAddBias(t *testing.T) { optest.Run(t, add_bias.Cases()) }
