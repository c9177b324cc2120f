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

func TestRoom(t *testing.T) {
	for _, c := range []struct {
		config     Config
		held       int
		step, last int64
		want       int64
	}{
		{Config{Every: 100, KeepLast: 3}, 0, 0, 1000, 4},
		{Config{Every: 100, KeepLast: 3}, 0, 0, 250, 3}, // 100, 200, 250
		{Config{Every: 100, KeepLast: 3}, 0, 0, 200, 2},
		{Config{Every: 500, KeepLast: 3}, 0, 0, 20, 1},
		{Config{Every: 100, KeepLast: 3}, 2, 200, 1000, 2},
		{Config{Every: 100, KeepLast: 3}, 3, 300, 1000, 1},
		{Config{Every: 100, KeepLast: 3}, 9, 900, 1000, 1},
		{Config{Every: 100, KeepLast: 3}, 3, 1000, 1000, 0},
		{Config{Every: 100, KeepLast: 1, KeepEvery: 200}, 0, 0, 1000, 7},
		{Config{Every: 100, KeepLast: 1, KeepEvery: 200}, 5, 400, 1000, 4},
	} {
		if got := c.config.Room(c.held, c.step, c.last); got != c.want {
			t.Errorf("%+v, %d held, step %d of %d: %d, want %d", c.config, c.held, c.step, c.last, got, c.want)
		}
	}
}
