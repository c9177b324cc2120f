package add_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAdd(t *testing.T) { optest.Run(t, add.Cases()) }
