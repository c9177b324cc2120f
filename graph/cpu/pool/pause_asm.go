//go:build amd64 || arm64

package pool

// pause tells the core that it is waiting for another one, which leaves more of a shared core to
// its other thread.
func pause()
