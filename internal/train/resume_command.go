package train

import (
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/internal/shell"
)

// lowerLR is the change of the recipe that a message suggests to a run that has diverged.
const lowerLR = "optim.lr=..."

// resumeCommand returns the command line that continues the run in dir with sets and with what else
// the user gave to this command. Of several sets for one key the last one counts.
func (o Options) resumeCommand(dir string, sets []string) string {
	words := []string{"sambatrain", "resume", dir}
	for i, set := range sets {
		key, _, _ := strings.Cut(set, "=")
		if !slices.ContainsFunc(sets[i+1:], func(later string) bool { return strings.HasPrefix(later, key+"=") }) {
			words = append(words, "--set", set)
		}
	}
	if o.AllowDataChange {
		words = append(words, "--allow-data-change")
	}
	return shell.Command(append(words, o.Flags...)...)
}

// resumeCommand returns the command line that continues this run, its recipe changed by sets too.
func (s *session) resumeCommand(sets ...string) string {
	return s.options.resumeCommand(s.dir, slices.Concat(s.sets, sets))
}

// stopped returns the error of a run that was asked to stop after the step.
func (s *session) stopped(step int64) error {
	if step < 0 && !s.resumed {
		return &Stopped{Run: s.dir, Step: step} // there is nothing to resume
	}
	return &Stopped{Run: s.dir, Step: step, Command: s.resumeCommand()}
}
