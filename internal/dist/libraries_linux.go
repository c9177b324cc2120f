package dist

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Libraries returns the library that connects CPUs and the one that connects GPUs.
func Libraries() []Library {
	cpus, gpus := Library{Use: "between CPUs"}, Library{Use: "between GPUs"}
	cpus.Version, cpus.Err = openMPIVersion()
	gpus.Version, gpus.Err = ncclVersion()
	return []Library{cpus, gpus}
}

func openMPIVersion() (string, error) {
	m, err := openMPILibrary()
	if err != nil {
		return "", err
	}
	var text [8192]byte // MPI_MAX_LIBRARY_VERSION_STRING is 256 in Open MPI
	var n int32
	if err := m.call("MPI_Get_library_version", m.libraryVersion, uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&n))); err != nil {
		return "", err
	}
	version, _, _ := strings.Cut(string(text[:max(n, 0)]), ",")
	return fmt.Sprintf("%s (%s)", version, m.lib.Path), nil
}

func ncclVersion() (string, error) {
	n, err := openNCCL("libnccl.so.2")
	if err != nil {
		return "", err
	}
	var v int32
	purego.SyscallN(n.version, uintptr(unsafe.Pointer(&v)))
	return fmt.Sprintf("NCCL %d.%d.%d (%s)", v/10000, v/100%100, v%100, n.lib.Path), nil
}
