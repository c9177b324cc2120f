package arch_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/sambatrain/sambatrain"
	root   = "../.."
)

// rule says which packages of this module a package may import: patterns of path.Match, or a folder
// and everything below it, as in `graph/...`. Tests may import anything.
type rule struct {
	pkg    string
	may    []string
	reason string
}

// rules: the first one that matches a package applies.
var rules = []rule{
	{"graph", nil, "a graph knows no op and no executor"},
	{"graph/cpu/simd", nil, "vector functions know no graph"},
	{"graph/cpu/simd/gen/*", []string{"graph/cpu/simd/gen/kernel"}, "what generates assembly is no part of the program"},
	{"graph/cpu/peak", []string{"graph/cpu/simd"}, "limits are the machine's, whatever runs on it"},
	{"graph/cpu/pool", nil, "workers know no work"},
	{"graph/cpu", []string{"graph", "graph/cpu/pool", "graph/cpu/simd"}, "an executor runs any Spec and names no op"},
	{"graph/cuda/...", []string{"graph", "graph/cuda/...", "internal/dylib", "internal/wholefile"}, "an executor runs any Spec and names no op"},
	{"graph/reference", []string{"graph"}, "an executor runs any Spec and names no op"},
	{"graph/ops", []string{"graph", "graph/ops/*"}, "it is the list of all ops"},
	{"graph/ops/*", []string{"graph", "graph/cpu/simd"}, "an op knows no other op and no executor"},
	{"layers", []string{"graph", "graph/ops/*"}, "layers put ops into a graph"},
	{"optim", []string{"graph", "graph/ops/*"}, "the optimizer is a graph of ops"},
	{"data", []string{"data/sentencepiece", "internal/wholefile"}, "data stands alone"},
	{"data/*", nil, "a file format stands alone"},
	{"checkpoint", []string{"checkpoint/safetensors", "internal/wholefile"}, "checkpoints know tensors by their names"},
	{"checkpoint/*", nil, "a file format stands alone"},
	{"recipes", []string{"layers", "optim", "data", "checkpoint"}, "a recipe decodes into the structs that it configures"},
	{"internal/arch", nil, "it looks from outside"},
	{"internal/optest", []string{"graph", "graph/cpu", "graph/cpu/simd", "graph/cuda", "graph/ops/add", "graph/reference"}, "the harness of all ops names only the addition of gradients"},
	{"internal/dist", []string{"graph", "internal/dylib"}, "numbers move between processes, whatever they mean"},
	{"internal/dist/disttest", nil, "a test's processes know nothing of the program"},
	{"internal/wholefile", nil, "writing a file stands alone"},
	{"internal/shell", nil, "quoting stands alone"},
	{"internal/plainjson", nil, "writing JSON stands alone"},
	{"internal/dylib", nil, "opening libraries stands alone"},
	{"internal/plot", []string{"internal/wholefile"}, "drawing knows no run"},
	{"internal/runlog", []string{"internal/wholefile"}, "logs stand alone"},
	{"internal/generate", []string{"graph", "graph/cpu/simd", "graph/ops/sample", "layers"}, "a text is continued on any device; where the host draws a token, it draws as the device does"},
	// cast_weights makes the rounded copy of restored weights, before the first step.
	{"internal/train", []string{"recipes", "layers", "optim", "data", "checkpoint", "graph", "graph/cpu", "graph/cuda", "graph/ops/cast_weights", "internal/*"}, "the loop runs programs and names no op"},
	{"internal/*", []string{"recipes", "layers", "optim", "data", "data/sentencepiece", "checkpoint", "checkpoint/*", "graph", "graph/cpu", "graph/cpu/peak", "graph/cuda", "internal/*"}, "what is around the loop names no op"},
	{"cmd/*", []string{"recipes", "data", "checkpoint", "checkpoint/*", "graph", "graph/cpu", "graph/cuda", "internal/*"}, "commands call the loop"},
	{"scripts/...", []string{"..."}, "scripts measure anything"},
}

func fits(pattern, name string) bool {
	if folder, ok := strings.CutSuffix(pattern, "..."); ok {
		folder = strings.TrimSuffix(folder, "/")
		return folder == "" || name == folder || strings.HasPrefix(name, folder+"/")
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// source is a Go file: its package's path within the module, and what it imports.
type source struct {
	file, pkg string
	imports   []string
}

// sources returns all Go files of the module, whatever system they are for.
func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	err := fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		s := source{file: file, pkg: path.Dir(file)}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, name)
		}
		list = append(list, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 100 {
		t.Fatalf("found %d Go files only", len(list))
	}
	return list
}

func TestWhoMayImportWhom(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		i := slices.IndexFunc(rules, func(r rule) bool { return fits(r.pkg, s.pkg) })
		if i < 0 {
			t.Errorf("%s: no rule says what package %s may import: add one", s.file, s.pkg)
			continue
		}
		used[rules[i].pkg] = true
		for _, name := range s.imports {
			to, ours := strings.CutPrefix(name, module+"/")
			if ours && !slices.ContainsFunc(rules[i].may, func(m string) bool { return fits(m, to) }) {
				t.Errorf("%s imports %s: %s; of this module it may import %v", s.file, to, rules[i].reason, rules[i].may)
			}
		}
	}
	for _, r := range rules {
		if !used[r.pkg] && !strings.HasSuffix(r.pkg, "...") {
			t.Errorf("no package fits the rule for %s: remove it", r.pkg)
		}
	}
}

// TestOnlyGraphKnowsGorgonia also covers tests.
func TestOnlyGraphKnowsGorgonia(t *testing.T) {
	found := false
	for _, s := range sources(t) {
		for _, name := range s.imports {
			if !strings.HasPrefix(name, "gorgonia.org/") && name != "github.com/chewxy/hm" && !strings.HasPrefix(name, "go4.org/") {
				continue
			}
			found = true
			if s.pkg != "graph" {
				t.Errorf("%s imports %s: only package graph may", s.file, name)
			}
		}
	}
	if !found {
		t.Error("not even package graph imports gorgonia")
	}
}

// TestNoCgo: the program is built without a C compiler.
func TestNoCgo(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(s.imports, "C") {
			t.Errorf("%s imports C", s.file)
		}
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"graph", "graph", true}, {"graph", "graph/cpu", false},
		{"graph/ops/*", "graph/ops/add", true}, {"graph/ops/*", "graph/ops", false}, {"graph/ops/*", "graph/ops/add/x", false},
		{"graph/cuda/...", "graph/cuda", true}, {"graph/cuda/...", "graph/cuda/a/b", true}, {"graph/cuda/...", "graph/cudax", false},
		{"...", "anything/at/all", true},
	} {
		if got := fits(c.pattern, c.name); got != c.want {
			t.Errorf("fits(%q, %q) is %v", c.pattern, c.name, got)
		}
	}
}
