package all_gather_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/all_gather"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAllGather(t *testing.T) { optest.Run(t, all_gather.Cases()) }
