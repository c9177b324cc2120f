package train

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/recipes"
)

// TestNewDevice works on machines with and without a GPU: the result is a device, or an error that
// names the key.
func TestNewDevice(t *testing.T) {
	for _, run := range []recipes.Run{
		{Device: recipes.CPU, DType: recipes.Float32, Threads: 1},
		{Device: recipes.Auto, DType: recipes.Float32},
		{Device: recipes.Auto, DType: recipes.BFloat16},
		{Device: recipes.Auto, DType: recipes.TF32},
		{Device: recipes.CUDA, DType: recipes.Float32},
	} {
		dev, err := NewDevice(run, slog.New(slog.DiscardHandler))
		switch {
		case err == nil && dev == nil, err != nil && dev != nil:
			t.Errorf("%+v: device %v, error %v", run, dev, err)
		case err != nil && (run.Device == recipes.CPU || !strings.HasPrefix(err.Error(), "run.")):
			t.Errorf("%+v: %v", run, err)
		case err == nil:
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
