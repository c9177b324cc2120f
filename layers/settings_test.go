package layers_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

// TestSettingsMatter: each setting of each mixer changes the shapes of parameters, or the loss.
func TestSettingsMatter(t *testing.T) {
	for mixer, settings := range map[string]map[string]any{
		"mamba":     {"expand": 1.5, "d_state": 7, "d_conv": 3, "dt_rank": 2},
		"attn":      {"heads": 2, "kv_heads": 1, "head_dim": 6, "rope_base": 100.0},
		"swa":       {"heads": 2, "kv_heads": 1, "head_dim": 6, "rope_base": 100.0, "window": 2},
		"mlp":       {"d_ff": 7},
		"gla":       {"heads": 4, "expand_k": 1.0, "expand_v": 2.0, "gate_low_rank": 2, "gate_logit_normalizer": 4.0},
		"retention": {"heads": 4, "expand_k": 0.5, "expand_v": 1.0, "rope_base": 100.0},
		"mega":      {"z_dim": 4, "chunk": 3, "d_state": 7, "d_conv": 3, "dt_rank": 2},
	} {
		all, err := layers.Settings(mixer)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for i := range reflect.TypeOf(all).NumField() {
			if key := reflect.TypeOf(all).Field(i).Tag.Get("json"); key != "" && !(mixer == "attn" && key == "window") {
				keys = append(keys, key)
			}
		}
		if got := slices.Sorted(maps.Keys(settings)); !slices.Equal(got, slices.Sorted(slices.Values(keys))) {
			t.Errorf("%s: settings %v are tested, it has %v", mixer, got, keys)
		}
		before := compileSmall(t, small(mixer+" mlp", 1, true))
		for key, value := range settings {
			m := small(mixer+" mlp", 1, true)
			m.Layers.Pattern[0].Settings = map[string]any{key: value}
			after := compileSmall(t, m)
			if shapes(before.train) != shapes(after.train) {
				continue
			}
			if loss(t, before) == loss(t, after) {
				t.Errorf("%s: %s makes no difference", mixer, key)
			}
		}
	}
}

// shapes lists a plan's parameters.
func shapes(p *graph.Plan) string {
	var text strings.Builder
	for _, q := range p.Params {
		text.WriteString(q.Name + q.Shape.String() + "\n")
	}
	return text.String()
}

func loss(t *testing.T, c *trained) float64 {
	t.Helper()
	return c.reference(t, c.train).Read(c.train.Results["loss"]).Data[0]
}
