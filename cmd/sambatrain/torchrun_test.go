package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestTorchrunOnCPU: Open MPI can't use torchrun's processes; an error says how to start them
// instead.
func TestTorchrunOnCPU(t *testing.T) {
	if _, err := exec.LookPath("mpirun"); err != nil {
		t.Skip("no mpirun: install Open MPI 4 (openmpi-bin)")
	}
	dir := workspace(t, 1, 1)
	env := []string{"RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=1", "MASTER_ADDR=localhost", "MASTER_PORT=29400"}
	e := finish(t, program(dir, env, "pretrain", "tiny.yaml"))
	if want := "start CPU processes with `mpirun -n 2 sambatrain ...`"; e.code != exitFailure || !strings.Contains(e.complaint(), want) {
		t.Errorf("exit status %d, %q; want %q", e.code, e.complaint(), want)
	}
}
