package train

import "testing"

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		inUse uint64
		want  int
	}{{0, 100}, {garbage / 2, 100}, {garbage, 100}, {2 * garbage, 50}, {16 * garbage, 6}, {1 << 50, 1}} {
		if got := gcPercent(c.inUse); got != c.want {
			t.Errorf("%d bytes in use: %d%%, want %d%%", c.inUse, got, c.want)
		}
	}
}
