package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSaveAndResume(t *testing.T) {
	dir := t.TempDir()
	if _, skipped, err := Newest(dir); !errors.Is(err, ErrNoCheckpoint) || len(skipped) != 0 {
		t.Fatalf("a new run: skipped %v, error %v", skipped, err)
	}
	r := lock(t, dir)
	r.fs = osFS{}
	if len(r.Recovered) != 0 {
		t.Errorf("a new run recovered %q", r.Recovered)
	}
	before := time.Now()
	save(t, r, 5, 1)
	info := save(t, r, 123, 2)
	if want := filepath.Join(dir, "checkpoints", "step-00000123"); info.Dir != want || info.Step != 123 {
		t.Errorf("saved as %+v, want %s", info, want)
	}

	c := newest(t, dir)
	if diff := cmp.Diff(state(123), c.State); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if c.SavedAt.Before(before.Add(-time.Second)) || c.SavedAt.After(time.Now()) {
		t.Errorf("saved at %v", c.SavedAt)
	}
	if c.Dir != info.Dir {
		t.Errorf("loaded from %s, saved to %s", c.Dir, info.Dir)
	}
	holds(t, c, 2)
	model, _ := tensors(2)
	got := blank(model)
	if err := c.ReadModel(got); err != nil {
		t.Fatal(err)
	}
	sameBits(t, got, model)

	infos, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 2 || infos[0].Step != 5 || infos[1] != info {
		t.Errorf("list is %+v", infos)
	}
	if names := leftovers(t, dir); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
}

// TestMoved: a checkpoint is valid wherever it is, but not under the name of another step.
func TestMoved(t *testing.T) {
	dir := t.TempDir()
	info := save(t, lock(t, dir), 7, 1)
	best := filepath.Join(dir, "best")
	if err := os.Rename(info.Dir, best); err != nil {
		t.Fatal(err)
	}
	c, err := Load(best)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, c, 1)
	other := filepath.Join(dir, "step-00000008")
	if err := os.Rename(best, other); err != nil {
		t.Fatal(err)
	}
	wantError(t, Verify(other), manifestFile, "step is 7", "says 8")
}

func TestSaveSameStepAgain(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 7, 1)
	save(t, r, 7, 2)
	c := newest(t, dir)
	holds(t, c, 2)
	if names := leftovers(t, dir); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	info := save(t, lock(t, dir), 1, 1)
	c, err := Load(info.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(model, optimizer []Tensor) ([]Tensor, []Tensor)
		want   []string
	}{
		"missing": {func(m, o []Tensor) ([]Tensor, []Tensor) {
			m[0].Name = "layers.0.other"
			return m, o
		}, []string{`model tensor "layers.0.other" is in this run but not in the checkpoint`}},
		"extra": {func(m, o []Tensor) ([]Tensor, []Tensor) { return m, o[:2] },
			[]string{`optimizer tensor "exp_avg.layers.1.weight" (and 5 more) are in the checkpoint but not in this run`}},
		"transposed": {func(m, o []Tensor) ([]Tensor, []Tensor) {
			m[0].Shape = []int{3, 2}
			return m, o
		}, []string{`model tensor "layers.0.weight"`, "[2 3] in the checkpoint", "[3 2] in this run"}},
		"data too short": {func(m, o []Tensor) ([]Tensor, []Tensor) {
			m[0].Data = m[0].Data[:5]
			return m, o
		}, []string{`tensor "layers.0.weight": shape [2 3] has 6 elements, its data 5`}},
		"twice": {func(m, o []Tensor) ([]Tensor, []Tensor) { return append(m, m[0]), o },
			[]string{`"layers.0.weight": asked for twice`}},
	} {
		t.Run(name, func(t *testing.T) {
			model, optimizer := tensors(1)
			m, o := blank(model), blank(optimizer)
			m, o = test.change(m, o)
			wantError(t, c.Read(m, o), test.want...)
			for _, x := range append(m, o...) {
				for _, v := range x.Data {
					if v != -77 {
						t.Fatalf("tensor %q was touched", x.Name)
					}
				}
			}
		})
	}
}

func TestSaveRefuses(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	for name, test := range map[string]struct {
		change func(s *State, model []Tensor)
		want   string
	}{
		"negative step":  {func(s *State, _ []Tensor) { s.Step = -1 }, "step: -1 is negative"},
		"no recipe":      {func(s *State, _ []Tensor) { s.RecipeSHA256 = "" }, "recipe_sha256"},
		"upper-case sum": {func(s *State, _ []Tensor) { s.RecipeSHA256 = strings.ToUpper(s.RecipeSHA256) }, "lower-case"},
		"shape":          {func(_ *State, m []Tensor) { m[1].Shape = []int{6} }, `tensor "layers.1.weight": shape [6] has 6 elements, its data 5`},
		"negative shape": {func(_ *State, m []Tensor) { m[1].Shape = []int{-5, -1} }, "negative dimension"},
		"huge shape":     {func(_ *State, m []Tensor) { m[1].Shape = []int{1 << 40, 1 << 24} }, "overflows"},
		"name twice":     {func(_ *State, m []Tensor) { m[1].Name = m[0].Name }, `"layers.0.weight": given twice`},
		"extra":          {func(s *State, _ []Tensor) { s.Extra["bad"] = []byte("{") }, "state"},
	} {
		t.Run(name, func(t *testing.T) {
			s := state(1)
			model, optimizer := tensors(1)
			test.change(&s, model)
			_, err := r.Save(s, model, optimizer)
			wantError(t, err, "save checkpoint of step", test.want)
			if names := leftovers(t, dir); len(names) > 0 {
				t.Errorf("left over: %q", names)
			}
		})
	}
	if infos, err := List(dir); err != nil || len(infos) != 0 {
		t.Errorf("list is %v (%v), want none", infos, err)
	}
}

func TestStepNames(t *testing.T) {
	for name, want := range map[string]int64{
		"step-00000000": 0, "step-00000123": 123, "step-99999999": 99999999, "step-123456789": 123456789,
		"step-123": -1, "step-000000123": -1, "step-+0000123": -1, "step--0000123": -1, "step-0000012x": -1,
		".saving-step-00000001": -1, "step-99999999999999999999": -1, "": -1,
	} {
		got, ok := parseStep(name)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("parseStep(%q) is %d, %v; want %d", name, got, ok, want)
		}
	}
}

func TestListNamesMissingRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := List(dir)
	wantError(t, err, dir)
	_, _, err = Newest(dir)
	wantError(t, err, dir)
}
