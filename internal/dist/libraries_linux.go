package dist

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Libraries says, in a line each, which library moves numbers between CPUs and which
// between GPUs, and where it was found.
func Libraries() []string { return []string{openMPIVersion(), ncclVersion()} }

func openMPIVersion() string {
	const what = "between CPUs: "
	m, err := openMPILibrary()
	if err != nil {
		return what + err.Error()
	}
	var text [8192]byte // MPI_MAX_LIBRARY_VERSION_STRING is 256 in Open MPI
	var n int32
	if err := m.call("MPI_Get_library_version", m.libraryVersion, uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&n))); err != nil {
		return what + err.Error()
	}
	version, _, _ := strings.Cut(string(text[:max(n, 0)]), ",")
	return fmt.Sprintf("%s%s (%s)", what, version, m.lib.Path)
}

func ncclVersion() string {
	const what = "between GPUs: "
	n, err := openNCCL("libnccl.so.2")
	if err != nil {
		return what + err.Error()
	}
	var v int32
	purego.SyscallN(n.version, uintptr(unsafe.Pointer(&v)))
	return fmt.Sprintf("%sNCCL %d.%d.%d (%s)", what, v/10000, v/100%100, v%100, n.lib.Path)
}
