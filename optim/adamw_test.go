package optim_test

import (
	"math"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/optim"
)

// decode reads a recipe's `optim:` section as the recipe reader does.
func decode(t *testing.T, section string) optim.AdamW {
	t.Helper()
	recipe := struct {
		Optim optim.AdamW `yaml:"optim"`
	}{optim.DefaultAdamW()}
	if err := yaml.UnmarshalWithOptions([]byte("optim: {"+section+"}"), &recipe, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return recipe.Optim
}

func TestDecode(t *testing.T) {
	minLR, steps := 1e-5, int64(7)
	want := optim.DefaultAdamW()
	if diff := cmp.Diff(want, decode(t, "")); diff != "" {
		t.Errorf("empty section (-want +got):\n%s", diff)
	}
	want = optim.AdamW{PeakLR: 1e-3, Schedule: optim.Cosine, MinLR: &minLR, WarmupSteps: &steps, Betas: []float64{0.8, 0.9}, Eps: 1e-6, Decayed: optim.DecayAll}
	got := decode(t, "lr: 1e-3, min_lr: 1e-5, warmup_steps: 7, betas: [0.8, 0.9], eps: 1e-6, weight_decay: 0, grad_clip: 0")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("full section (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct{ section, want string }{
		{"", ""},
		{"min_lr: 0, warmup_steps: 0, weight_decay: 0, grad_clip: 0, betas: [0, 0]", ""},
		{"min_lr: 4e-4, warmup_fraction: 0", ""},
		{"lr: 0", "optim.lr: must be positive, is 0"},
		{"lr: .inf", "optim.lr: must be positive, is +Inf"},
		{"lr: .nan", "optim.lr: must be positive, is NaN"},
		{"lr: 1e-60", "optim.lr: must be positive and finite in float32, is 1e-60"},
		{"lr: 1e39", "optim.lr: must be positive and finite in float32, is 1e+39"},
		{"schedule: wsd, decay_fraction: 1", ""},
		{"schedule: constant, warmup_steps: 3", ""},
		{"schedule: cosin", `optim.schedule: must be one of cosine, linear, wsd, constant, is "cosin"`},
		{"decay_fraction: 0.2", "optim.decay_fraction: only applies to the schedule wsd, not cosine: leave it out"},
		{"schedule: wsd, decay_fraction: 0", "optim.decay_fraction: must be above 0 and at most 1, is 0"},
		{"schedule: constant, min_lr: 0", "optim.min_lr: does not apply to the schedule constant, which ends with lr: leave it out"},
		{"min_lr: 5e-4", "optim.min_lr: must be at least 0 and at most lr (0.0004), is 0.0005"},
		{"min_lr: -1", "optim.min_lr: must be at least 0 and at most lr (0.0004), is -1"},
		{"warmup_steps: 100, warmup_fraction: 0.01", "optim.warmup_fraction: can't be given along with warmup_steps: leave one of them out"},
		{"warmup_steps: -1", "optim.warmup_steps: must be at least 0, is -1"},
		{"warmup_fraction: 1", "optim.warmup_fraction: must be at least 0 and below 1, is 1"},
		{"betas: [0.9]", "optim.betas: must be two numbers such as [0.9, 0.95], is [0.9]"},
		{"betas: [0.9, 0.95, 0.99]", "optim.betas: must be two numbers such as [0.9, 0.95], is [0.9 0.95 0.99]"},
		{"betas: [0.9, 1]", "optim.betas[1]: must be at least 0 and below 1, is 1"},
		{"betas: [.nan, 0.9]", "optim.betas[0]: must be at least 0 and below 1, is NaN"},
		{"eps: 0", "optim.eps: must be positive and finite in float32, is 0"},
		{"eps: 1e-60", "optim.eps: must be positive and finite in float32, is 1e-60"},
		{"weight_decay: -0.1", "optim.weight_decay: must be at least 0, is -0.1"},
		{"decayed: matrices", ""},
		{"decayed: norms", `optim.decayed: must be one of all, matrices, is "norms"`},
		{"grad_clip: 1e-60", "optim.grad_clip: must be positive and finite in float32, or 0 for no clipping, is 1e-60"},
		{"weight_decay: 1e39", "optim.weight_decay: must be at least 0 and finite in float32, is 1e+39"},
		{"grad_clip: -1", "optim.grad_clip: must be positive, or 0 for no clipping, is -1"},
	} {
		got := ""
		if err := decode(t, c.section).Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: error %q, want %q", c.section, got, c.want)
		}
	}
}

// The expected values were printed by a float64 Python implementation of the schedule.
func TestLR(t *testing.T) {
	type point struct {
		step int64
		want float64
	}
	for _, c := range []struct {
		section    string
		totalSteps int64
		points     []point
	}{
		{"lr: 2e-3, min_lr: 2e-4, warmup_steps: 2", 8, []point{
			{0, 0}, {1, 0.001}, {2, 0.002}, {3, 0.001879422863405995}, {4, 0.00155}, {5, 0.0011},
			{7, 0.00032057713659400515}, {8, 0.0002}, {20, 0.0002},
		}},
		{"", 9536, []point{ // 1% of the steps are 95
			{0, 0}, {1, 4.210526315789474e-06}, {94, 0.0003957894736842105}, {95, 0.0004}, {96, 0.00039999999003433566},
			{4000, 0.00026824862986301045}, {4815, 0.00022002994845223163}, {9535, 4.000000996566436e-05}, {9536, 4e-05},
			{10000, 4e-05},
		}},
		{"lr: 1, min_lr: 0, warmup_fraction: 0", 2, []point{{0, 1}, {1, 0.5}, {2, 0}}},
		{"lr: 1, warmup_fraction: 0.29", 100, []point{{28, 28. / 29}, {29, 1}}},
		{"lr: 1, schedule: linear, min_lr: 0, warmup_steps: 2", 10, []point{{1, 0.5}, {2, 1}, {4, 0.75}, {9, 0.125}, {10, 0}, {12, 0}}},
		{"lr: 1, schedule: wsd, warmup_steps: 2", 10, []point{{1, 0.5}, {2, 1}, {8, 1}, {9, 0.55}, {10, 0.1}, {12, 0.1}}},
		{"lr: 1, schedule: wsd, min_lr: 0, decay_fraction: 0.5, warmup_steps: 0", 8, []point{{4, 1}, {5, 0.75}, {7, 0.25}, {8, 0}}},
		{"lr: 1, schedule: wsd, min_lr: 0, decay_fraction: 1, warmup_steps: 2", 10, []point{{1, 0.5}, {2, 1}, {6, 0.5}}},
		{"lr: 1, schedule: wsd, decay_fraction: 0.01, warmup_steps: 0", 10, []point{{9, 1}, {10, 0.1}}},
		{"lr: 1, schedule: constant, warmup_steps: 2", 10, []point{{1, 0.5}, {2, 1}, {10, 1}, {12, 1}}},
		{"lr: 1, warmup_steps: 4", 4, []point{{3, 0.75}, {4, 0.1}}},
		{"lr: 1, warmup_steps: 4", 2, []point{{1, 0.25}, {3, 0.75}, {4, 0.1}}},
	} {
		o := decode(t, c.section)
		for _, p := range c.points {
			if got := o.LR(p.step, c.totalSteps); !(math.Abs(got-p.want) <= 1e-15) {
				t.Errorf("%s: step %d of %d: %v, want %v", c.section, p.step, c.totalSteps, got, p.want)
			}
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	if _, err := (optim.AdamW{}).Build(nil, 16, false, optim.Shard{}); err == nil || !strings.Contains(err.Error(), "optim.lr:") {
		t.Errorf("settings without values: error is %v", err)
	}
	if _, err := optim.DefaultAdamW().Build(nil, 0, false, optim.Shard{}); err == nil {
		t.Error("no parameters are accepted")
	}
}
