package all_reduce_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/all_reduce"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAllReduce(t *testing.T) { optest.Run(t, all_reduce.Cases()) }
