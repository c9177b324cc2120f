//go:build linux

package cuda

import (
	"errors"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
)

// TestUnitsShared counts what is compiled for the launches of all ops at the shapes of real models:
// each source with its macros once, however many ops have it.
func TestUnitsShared(t *testing.T) {
	g := targets[2]
	compiled := map[string]int{}
	m := modules{load: func(op string, u unit) (uintptr, error) {
		compiled[u.key()]++
		return uintptr(len(compiled)), nil
	}}
	byOp := map[string]bool{}
	for _, op := range ops.All() {
		eachLaunch(t, g, op.Cases(), func(r *graph.Resolved, l graph.Launch, bench bool) {
			if !bench {
				return
			}
			u := newUnit(r.Spec.CUDA.Source, g.arch(), l.Defines)
			byOp[r.Spec.Name+"\n"+u.key()] = true
			if _, err := m.of(r.Spec.Name, u); err != nil {
				t.Fatal(err)
			}
		})
	}
	for key, n := range compiled {
		if n != 1 {
			t.Errorf("compiled %d times: %.100s", n, key)
		}
	}
	t.Logf("%d units are compiled; with those of each op apart it would be %d", len(compiled), len(byOp))
	if len(compiled) >= len(byOp) {
		t.Errorf("no ops share any of %d units", len(compiled))
	}
}

// TestUnits: other macros, another architecture or another source make another unit. After an error
// it is tried again.
func TestUnits(t *testing.T) {
	failure := errors.New("it fails")
	fail, times := true, 0
	m := modules{load: func(string, unit) (uintptr, error) {
		times++
		if fail {
			return 0, failure
		}
		return uintptr(times), nil
	}}
	if _, err := m.of("a", newUnit("source", "sm_80", nil)); !errors.Is(err, failure) {
		t.Errorf("error is %v", err)
	}
	fail = false
	got := map[uintptr]bool{}
	for _, c := range []struct {
		op string
		u  unit
	}{
		{"a", newUnit("source", "sm_80", nil)},
		{"b", newUnit("source", "sm_80", map[string]string{})},
		{"a", newUnit("source", "sm_90a", nil)},
		{"a", newUnit("other", "sm_80", nil)},
		{"a", newUnit("source", "sm_80", map[string]string{"N": "1"})},
		{"b", newUnit("source", "sm_80", map[string]string{"N": "1"})},
		{"a", newUnit("source", "sm_80", map[string]string{"N": "2"})},
		{"a", newUnit("source", "sm_80", map[string]string{"N": "1", "M": "2"})},
	} {
		module, err := m.of(c.op, c.u)
		if err != nil {
			t.Fatal(err)
		}
		got[module] = true
	}
	if len(got) != 6 || times != 7 {
		t.Errorf("%d modules, loaded %d times, want 6 and 7", len(got), times)
	}
}
