package cpu

// ErrClosed is what a closed device's programs return.
var ErrClosed = errClosed

// ErrProgramClosed is what closed programs return.
var ErrProgramClosed = errProgramClosed
