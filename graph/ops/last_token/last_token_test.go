package last_token_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/last_token"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestLastToken(t *testing.T) { optest.Run(t, last_token.Cases()) }
