package checkpoint

import (
	"testing"

	"github.com/goccy/go-yaml"
)

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	c := DefaultConfig()
	if err := yaml.UnmarshalWithOptions([]byte("every: 20\nkeep_last: 2\nkeep_every: 100\n"), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if want := (Config{Every: 20, KeepLast: 2, KeepEvery: 100}); c != want {
		t.Errorf("decoded %+v, want %+v", c, want)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfigRefuses(t *testing.T) {
	for key, c := range map[string]Config{
		"checkpoint.every: 0":        {Every: 0, KeepLast: 1},
		"checkpoint.keep_last: 0":    {Every: 1, KeepLast: 0},
		"checkpoint.keep_every: -10": {Every: 10, KeepLast: 1, KeepEvery: -10},
		"checkpoint.keep_every: 15":  {Every: 10, KeepLast: 1, KeepEvery: 15},
	} {
		wantError(t, c.Validate(), key)
	}
}
