//go:build !linux

package train

// physicalMemory is the machine's memory in bytes, 0 where it is unknown.
func physicalMemory() uint64 { return 0 }
