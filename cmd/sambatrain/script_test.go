package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: one topic per file. Besides testscript's own commands there are
//
//	code N COMMAND...       run a command that must exit with status N
//	oneline                 standard error is one line that begins with "sambatrain: "
//	json FILE KEY VALUE     a JSON document's value at a.b.c
//	gzip FILE...            compress files, as gzip does
//	text FOLDER DOCUMENTS   write a folder of text
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			fixtures, err := filepath.Abs(filepath.Join("..", "..", "internal", "verify", "testdata"))
			if err != nil {
				return err
			}
			e.Setenv("FIXTURES", fixtures)
			e.Setenv("NO_COLOR", "1")
			return os.WriteFile(filepath.Join(e.WorkDir, "tiny.yaml"), fmt.Appendf(nil, tiny, 6, 2), 0o666)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code":    scriptCode,
			"oneline": scriptOneLine,
			"json":    scriptJSON,
			"gzip":    scriptGzip,
			"text":    scriptText,
		},
	})
}

func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func scriptOneLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: oneline")
	}
	text := ts.ReadFile("stderr")
	if !strings.HasPrefix(text, "sambatrain: ") || strings.Count(text, "\n") != 1 {
		ts.Fatalf("standard error is not one line of sambatrain:\n%s", text)
	}
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: json FILE KEY VALUE")
	}
	var at any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &at))
	for key := range strings.SplitSeq(args[1], ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(v) {
				ts.Fatalf("%s: no element %s", args[1], key)
			}
			at = v[i]
		default:
			at = nil
		}
		if at == nil {
			ts.Fatalf("%s: no key %s", args[1], key)
		}
	}
	text, err := json.Marshal(at)
	ts.Check(err)
	if string(text) != args[2] {
		ts.Fatalf("%s is %s, want %s", args[1], text, args[2])
	}
}

func scriptGzip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: gzip FILE...")
	}
	for _, name := range args {
		out, err := os.Create(ts.MkAbs(name + ".gz"))
		ts.Check(err)
		w := gzip.NewWriter(out)
		_, err = w.Write([]byte(ts.ReadFile(name)))
		ts.Check(errors.Join(err, w.Close(), out.Close(), os.Remove(ts.MkAbs(name))))
	}
}

func scriptText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: text FOLDER DOCUMENTS")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o777))
	for i := range n {
		text := strings.Repeat(fmt.Sprintf("%d green bottles hanging on the wall\n", i), 6)
		ts.Check(os.WriteFile(ts.MkAbs(filepath.Join(args[0], fmt.Sprintf("%02d.txt", i))), []byte(text), 0o666))
	}
}
