package train

import "testing"

// TestLeastRoom: processes on one machine divide the memory that each finds free there; GPUs are
// not shared.
func TestLeastRoom(t *testing.T) {
	for _, c := range []struct {
		name string
		all  []room
		want int64
	}{
		{"GPUs", []room{{80, ""}, {70, ""}}, 70},
		{"one machine", []room{{80, "a"}, {76, "a"}, {80, "a"}, {80, "a"}}, 19},
		{"two machines", []room{{80, "a"}, {80, "a"}, {30, "b"}}, 30},
		{"two machines, one crowded", []room{{80, "a"}, {80, "a"}, {60, "b"}}, 40},
		{"unknown", []room{{0, "a"}, {0, "a"}}, 0},
	} {
		if got := leastRoom(c.all); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
