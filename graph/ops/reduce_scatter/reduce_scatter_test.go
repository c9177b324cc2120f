package reduce_scatter_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/reduce_scatter"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestReduceScatter(t *testing.T) { optest.Run(t, reduce_scatter.Cases()) }
