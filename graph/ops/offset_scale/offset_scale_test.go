package offset_scale_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph/ops/offset_scale"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestOffsetScale(t *testing.T) { optest.Run(t, offset_scale.Cases()) }
