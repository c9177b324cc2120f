package runlog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestJSONLines: as many lines as with text, in the form of metrics.jsonl.
func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	c := NewJSONLines(&out, ConsoleOptions{Total: 7, LogEvery: 5})
	c.Note(`{"level":"INFO","msg":"model"}`)
	for step := 1; step <= 7; step++ {
		c.Step(trainAt(step, 12345))
	}
	validated := ValRecord(7, noon, Val{Loss: 2.25, BitsPerByte: 3.24604})
	c.Step(validated)
	c.Close()
	want := []string{`{"level":"INFO","msg":"model"}`}
	for _, r := range []Record{trainAt(1, 12345), trainAt(5, 12345), trainAt(7, 12345), validated} {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(text))
	}
	if got := out.String(); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
