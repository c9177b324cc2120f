// Package rss reports the peak memory of the process.
package rss

import "golang.org/x/sys/unix"

// Peak returns the largest amount of memory that this process has had at once, in bytes.
func Peak() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss << 10
}
