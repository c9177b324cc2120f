//go:build linux

package cuda

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
	"github.com/gofrs/flock"

	"github.com/sambatrain/sambatrain/internal/dylib"
	"github.com/sambatrain/sambatrain/internal/wholefile"
)

//go:embed common.cuh
var common string

// compiler is NVIDIA's run-time compiler.
type compiler struct {
	lib          *dylib.Library
	major, minor int32

	getVersion, create, compile, logSize, log, cubinSize, cubin, destroy uintptr
}

var openCompiler = sync.OnceValues(func() (*compiler, error) {
	lib, err := dylib.Open(librariesHere("libnvrtc.so")...)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	c := &compiler{lib: lib}
	err = lib.Symbols(map[*uintptr]string{
		&c.getVersion: "nvrtcVersion", &c.create: "nvrtcCreateProgram", &c.compile: "nvrtcCompileProgram",
		&c.logSize: "nvrtcGetProgramLogSize", &c.log: "nvrtcGetProgramLog",
		&c.cubinSize: "nvrtcGetCUBINSize", &c.cubin: "nvrtcGetCUBIN", &c.destroy: "nvrtcDestroyProgram",
	})
	if err != nil {
		return nil, err
	}
	purego.SyscallN(c.getVersion, uintptr(unsafe.Pointer(&c.major)), uintptr(unsafe.Pointer(&c.minor)))
	return c, nil
})

// architecture is the compilation target for a compute capability. sm_90a includes Hopper-specific
// instructions and runs on nothing else; other capabilities have no such form.
func architecture(major, minor int) string {
	if major == 9 && minor == 0 {
		return "sm_90a"
	}
	return fmt.Sprintf("sm_%d%d", major, minor)
}

// options are the compiler's arguments for a set of macros.
func options(arch string, defines map[string]string) []string {
	list := []string{"--gpu-architecture=" + arch, "--std=c++17"}
	for _, name := range slices.Sorted(maps.Keys(defines)) {
		list = append(list, "-D"+name+"="+defines[name])
	}
	return list
}

// cacheFolder is the folder of compiled kernels, "" for a user without a home folder.
func cacheFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil
	}
	dir := filepath.Join(cache, "sambatrain", "cubin")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", cacheError(err)
	}
	return dir, nil
}

func cacheError(err error) error {
	return fmt.Errorf("cuda: kernel cache: %w; name a folder that can be written in XDG_CACHE_HOME", err)
}

// build returns the machine code of a unit, from the cache if it is there. name stands for it in messages.
func (c *compiler) build(name string, u unit) ([]byte, error) {
	sum := sha256.Sum256([]byte(fmt.Sprintf("nvrtc %d.%d\n%s", c.major, c.minor, u.key())))
	dir, err := cacheFolder()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		code, _, err := c.translate(name, u.text, u.options)
		return code, err
	}
	path := filepath.Join(dir, hex.EncodeToString(sum[:16])+".cubin")
	// Two processes don't compile the same source concurrently: the second one waits.
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return nil, cacheError(err)
	}
	defer lock.Unlock()
	if code, err := os.ReadFile(path); err == nil && len(code) > 0 {
		return code, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cacheError(err)
	}
	code, _, err := c.translate(name, u.text, u.options)
	if err != nil {
		return nil, err
	}
	if err := wholefile.Write(path, code); err != nil {
		return nil, cacheError(err)
	}
	return code, nil
}

// translate compiles a text, and also returns the compiler's messages.
func (c *compiler) translate(name, text string, opts []string) (code []byte, log string, err error) {
	var program uintptr
	if err := c.check("nvrtcCreateProgram", c.create, uintptr(unsafe.Pointer(&program)), uintptr(unsafe.Pointer(cString(text))), uintptr(unsafe.Pointer(cString(name))), 0, 0, 0); err != nil {
		return nil, "", err
	}
	defer purego.SyscallN(c.destroy, uintptr(unsafe.Pointer(&program)))
	args := make([]*byte, len(opts))
	for i, o := range opts {
		args[i] = cString(o)
	}
	restored := keepSignals()
	failed := c.check("nvrtcCompileProgram", c.compile, program, uintptr(len(args)), uintptr(unsafe.Pointer(&args[0])))
	if err := restored(); err != nil {
		return nil, "", fmt.Errorf("cuda: signals after nvrtcCompileProgram: %w", err)
	}
	var n uint64
	purego.SyscallN(c.logSize, program, uintptr(unsafe.Pointer(&n)))
	said := make([]byte, n+1)
	purego.SyscallN(c.log, program, uintptr(unsafe.Pointer(&said[0])))
	log = strings.TrimRight(string(said), "\x00\n")
	if failed != nil {
		return nil, log, fmt.Errorf("%w: %s with %s:\n%s", failed, name, strings.Join(opts, " "), log)
	}
	if err := c.check("nvrtcGetCUBINSize", c.cubinSize, program, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, log, err
	}
	code = make([]byte, n)
	return code, log, c.check("nvrtcGetCUBIN", c.cubin, program, uintptr(unsafe.Pointer(&code[0])))
}

//go:uintptrescapes
func (c *compiler) check(name string, f uintptr, args ...uintptr) error {
	if r, _, _ := purego.SyscallN(f, args...); int32(r) != 0 {
		return fmt.Errorf("cuda: %s: error %d", name, int32(r))
	}
	return nil
}
