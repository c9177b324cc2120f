//go:build !linux

package bench

// peakRSS is the most memory that this process has had at once, in bytes; 0 where it
// is unknown.
func peakRSS() int64 { return 0 }
