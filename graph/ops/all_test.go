package ops_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
	"github.com/sambatrain/sambatrain/graph/ops/add"
)

func TestListIsTheFolders(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var folders, listed []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "testdata" {
			folders = append(folders, e.Name())
		}
	}
	for _, op := range ops.All() {
		listed = append(listed, op.Name)
	}
	if diff := cmp.Diff(folders, listed); diff != "" {
		t.Errorf("all.go lists other ops than there are folders (-folders +listed):\n%s", diff)
	}
}

func TestFoldersAreComplete(t *testing.T) {
	for _, op := range ops.All() {
		patterns := []string{op.Name + ".go", "cpu*.go", op.Name + "_test.go", "README.md"}
		if op.Cases()[0].Spec.Collective != nil {
			patterns = slices.Delete(patterns, 1, 2) // a call to other processes has no kernel
		}
		for _, pattern := range patterns {
			found, err := filepath.Glob(filepath.Join(op.Name, pattern))
			if err != nil {
				t.Fatal(err)
			}
			if len(found) == 0 {
				t.Errorf("%s: has no %s", op.Name, pattern)
			}
		}
	}
}

func TestCasesAreComplete(t *testing.T) {
	for _, op := range ops.All() {
		t.Run(op.Name, func(t *testing.T) {
			cases := op.Cases()
			if !slices.ContainsFunc(cases, func(c graph.Case) bool { return c.Bench }) {
				t.Error("no case is for benchmarks")
			}
			if !slices.ContainsFunc(cases, func(c graph.Case) bool { return !c.Bench }) {
				t.Error("all cases are for benchmarks")
			}
			seen := map[string]bool{}
			for _, c := range cases {
				name := c.Spec.Name + "/" + c.Name
				if seen[name] {
					t.Errorf("two cases are named %s", name)
				}
				seen[name] = true
				r, err := c.Spec.ResolveDims(c.Dims)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				complete(t, op.Name, r)
				// An addition returns its gradient unchanged and has no backward op, and two
				// parameters can't share one gradient.
				if c.Spec.Gradient == nil || c.Bench || op.Name == "add" {
					continue
				}
				for _, s := range backward(t, r) {
					complete(t, op.Name, s.Resolved)
				}
			}
		})
	}
}

// complete checks the parts of a Spec that every op's folder must provide.
func complete(t *testing.T, op string, r *graph.Resolved) {
	t.Helper()
	s := r.Spec
	if s.Name != op && !strings.HasPrefix(s.Name, op+"_") {
		t.Errorf("spec %s: its name must be %s, or start with %s_", s.Name, op, op)
	}
	if s.Reference == nil {
		t.Errorf("spec %s has no Reference", s.Name)
	}
	if s.CPU == nil {
		t.Errorf("spec %s has no CPU", s.Name)
	}
	if s.Cost == nil {
		t.Errorf("spec %s has no Cost", s.Name)
	} else if c := s.Cost(r.Dims); !(c.FLOPs >= 0 && c.Bytes > 0) {
		t.Errorf("spec %s costs %+v", s.Name, c)
	}
}

// backward is the steps of an op's backward pass.
func backward(t *testing.T, r *graph.Resolved) []graph.Step {
	t.Helper()
	b := graph.NewBuilder(add.Spec)
	var in []graph.Tensor
	for _, o := range r.In {
		switch {
		case o.Updated:
			in = append(in, b.State(o.Name, o.Shape...))
		case o.DType == graph.Int32:
			in = append(in, b.Input(o.Name, o.DType, o.Shape...))
		default:
			in = append(in, b.Param(o.Name, nil, o.Shape...))
		}
	}
	loss := b.Apply(r.Spec, in...)
	if rank := len(r.Out[0].Shape); rank > 0 {
		loss = b.Apply(total(rank), loss)
	}
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	var steps []graph.Step
	for _, s := range plan.Steps {
		if s.Backward && s.Spec.Name != totalGradient {
			steps = append(steps, s)
		}
	}
	return steps
}

const totalGradient = "total_dx"

// total is a loss of one tensor. It is only compiled, never run.
func total(rank int) *graph.Spec {
	dims := "[" + strings.Join([]string{"N", "M", "L", "K"}[:rank], " ") + "]"
	dx := &graph.Spec{Name: totalGradient, Signature: "x" + dims + " -> dx" + dims}
	return &graph.Spec{
		Name:      "total",
		Signature: "x" + dims + " -> s[]",
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(dx, g.In[0])}
		},
	}
}
