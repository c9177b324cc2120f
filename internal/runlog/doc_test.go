package runlog

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumented: docs/runs.md lists every key of metrics.jsonl for the kinds of record that have
// it, and marks those that are measured by a clock.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/runs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## metrics.jsonl")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{} // by kind and key, whether it is measured by a clock
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`( \\*)? \\| (\\w+) \\|").FindAllStringSubmatch(section, -1) {
		documented[row[3]+" "+row[1]] = row[2] != ""
	}
	stall := 1.0
	want := map[string]bool{}
	for kind, r := range map[string]Record{
		"training":   {Kind: KindTrain},
		"validation": {Kind: KindVal, Val: Val{Longer: []ValAt{{Times: 2}}, BySource: []ValOf{{Name: "NAME"}}, Sources: []Source{{}}}},
		"event":      {Kind: KindEvent, Event: Event{StallMS: &stall}},
	} {
		for _, f := range r.fields() {
			in := kind
			if f.key == stepField.key || f.key == timeField.key {
				in = "all"
			}
			want[in+" "+f.key] = f.clock
		}
	}
	if !maps.Equal(documented, want) {
		t.Errorf("docs/runs.md has %v, want %v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(want)))
	}
	for _, event := range []string{EventCheckpoint, EventResumed, EventStopped, EventSkipped} {
		if !strings.Contains(section, "`"+event+"`") {
			t.Errorf("docs/runs.md does not name the event %s", event)
		}
	}
}
