package dist

import (
	"os/exec"
	"syscall"
)

// setAttributes puts a process in its own group, so that a signal to the group of its parent, as
// from a terminal, arrives once; and stops it when the parent dies.
func setAttributes(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
