package cpu

// ErrClosed is what a closed device's programs return.
var ErrClosed = errClosed
