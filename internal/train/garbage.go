package train

import (
	"os"
	"runtime"
	"runtime/debug"
)

// garbage is how much may pile up before it is collected, in bytes.
const garbage = 128 << 20

// boundGarbage is called when a run's memory has been allocated. By default Go lets as
// much garbage pile up as there is memory in use, and on a CPU that is the whole model:
// the process would become twice as large. To collect it more often costs nothing, as
// a model's memory holds no pointers. GOGC in the environment goes before.
func boundGarbage() {
	if os.Getenv("GOGC") != "" {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetGCPercent(gcPercent(m.HeapAlloc))
}

// gcPercent is the GOGC that bounds garbage where so many bytes are in use; that of a
// small heap is Go's default.
func gcPercent(inUse uint64) int { return int(min(max(100*garbage/max(inUse, 1), 1), 100)) }
