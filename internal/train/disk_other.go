//go:build !linux && !darwin

package train

// freeDisk is not known here.
func freeDisk(string) (free int64, known bool) { return 0, false }
