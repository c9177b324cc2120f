package train

import (
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// warnOfDisk says before the first step if the disk has less room than the run's checkpoints will
// take. It may become more, so this is no error.
func (s *session) warnOfDisk(free int64) error {
	held, err := checkpoint.List(s.dir)
	if err != nil {
		return err
	}
	const bytes = 3 * 4 // of a parameter and its two moments
	one := bytes * s.parameters()
	more := s.recipe.Checkpoint.Room(len(held), s.step, s.recipe.Train.Steps)
	if free < more*one {
		s.options.Log.Warn("the disk may be full before the run ends: free some space, or lower checkpoint.keep_last",
			"dir", s.dir, "free", gigabytes(free), "checkpoints_to_come", more, "each", gigabytes(one))
	}
	return nil
}

func gigabytes(n int64) string { return fmt.Sprintf("%.3g GB", float64(n)/1e9) }
