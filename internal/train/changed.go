package train

import (
	"fmt"
	"strings"
)

// here are keys of a recipe that say where a run happens, and change nothing that it
// computes.
var here = []string{"out:", "device:", "threads:", "log_every:", "memory_budget:", "timeout:"}

// changes are the lines of a resolved recipe that differ from those of another.
func changes(is, was []byte) []string {
	now, before := strings.Split(string(is), "\n"), strings.Split(string(was), "\n")
	if len(now) != len(before) {
		return []string{"sections or keys were added or removed"}
	}
	var list []string
	for i, line := range now {
		line, old := strings.TrimSpace(line), strings.TrimSpace(before[i])
		if line != old && !startsWithAny(line, here) {
			list = append(list, fmt.Sprintf("%s (was %s)", line, old))
		}
	}
	return list
}

func startsWithAny(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
