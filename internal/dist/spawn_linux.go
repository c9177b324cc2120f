package dist

import (
	"os/exec"
	"syscall"
)

// setAttributes gives a process a group of its own, so that a signal to the group of the
// one that started it, as from a terminal, comes once; and stops it when that one dies.
func setAttributes(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
