// Package disttest runs a test binary in several processes of Open MPI.
package disttest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// variable marks a process of several, and names what it should do.
const variable = "SAMBATRAIN_TEST_PROCESS"

// lingering is set where mpirun ends all processes as soon as one has ended: it waits for the
// others to say that they are content.
const lingering = "SAMBATRAIN_TEST_LINGER"

// content is what a process prints when all is well.
const content = "is content"

// Main is a package's TestMain: in a process of several it runs the one of its
// functions that a test asks for.
func Main(m *testing.M, functions map[string]func() error) {
	name := os.Getenv(variable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := functions[name](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("process %s %s\n", os.Getenv("OMPI_COMM_WORLD_RANK"), content)
	if os.Getenv(lingering) != "" {
		time.Sleep(2 * time.Second)
	}
}

// Run runs a function of Main's in so many processes, and skips where there is no Open
// MPI.
func Run(t *testing.T, processes int, function string) {
	t.Helper()
	if out, err := run(t, processes, function); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// RunAborted is Run for processes that end without taking leave of each other, which
// mpirun does not like.
func RunAborted(t *testing.T, processes int, function string) {
	t.Helper()
	t.Setenv(lingering, "1")
	_, _ = run(t, processes, function)
}

func run(t *testing.T, processes int, function string) ([]byte, error) {
	t.Helper()
	mpirun, err := exec.LookPath("mpirun")
	if err != nil {
		t.Skip("no mpirun: install Open MPI 4 (openmpi-bin)")
	}
	// mpirun ends all where a process waits for another without end.
	c := exec.Command(mpirun, "--timeout", "120", "--allow-run-as-root", "--oversubscribe", "-n", fmt.Sprint(processes), os.Args[0])
	c.Env = append(os.Environ(), variable+"="+function)
	out, err := c.CombinedOutput()
	if got := strings.Count(string(out), content); got != processes {
		t.Errorf("%d of %d processes are content:\n%s", got, processes, out)
	}
	return out, err
}
