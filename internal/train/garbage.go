package train

import (
	"os"
	"runtime"
	"runtime/debug"
)

// garbage is the amount that may accumulate before it is collected, in bytes.
const garbage = 128 << 20

// boundGarbage is called after a run's memory has been allocated. By default Go lets as much
// garbage accumulate as there is memory in use, and on a CPU that is the whole model: the process
// would double in size. Collecting more often costs nothing, because a model's memory contains no
// pointers. GOGC in the environment takes precedence.
func boundGarbage() {
	if os.Getenv("GOGC") != "" {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetGCPercent(gcPercent(m.HeapAlloc))
}

// gcPercent returns the GOGC that limits garbage when inUse bytes are in use; for a small heap it
// is Go's default.
func gcPercent(inUse uint64) int { return int(min(max(100*garbage/max(inUse, 1), 1), 100)) }
