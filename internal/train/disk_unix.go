//go:build linux || darwin

package train

import "golang.org/x/sys/unix"

// freeDisk returns how many bytes may still be written below a folder. known is false if the file
// system does not say.
func freeDisk(dir string) (free int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
