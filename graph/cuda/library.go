//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebitengine/purego"
)

// library is a shared library that was opened at run time.
type library struct {
	path   string
	handle uintptr
}

// openLibrary opens the first of names that is found: where the dynamic linker
// looks, then in the folders of CUDA toolkits and of Python's NVIDIA packages.
func openLibrary(names ...string) (*library, error) {
	var tried []string
	for _, path := range candidates(names) {
		h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
		if err == nil {
			return &library{path, h}, nil
		}
		tried = append(tried, path)
	}
	return nil, fmt.Errorf("cuda: %s not found (looked for %s); install it or name its folder in LD_LIBRARY_PATH", names[0], strings.Join(tried, ", "))
}

func candidates(names []string) []string {
	folders := []string{"/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/usr/local/cuda*/targets/*/lib", "/usr/local/nvidia/lib64", "/usr/lib/*-linux-gnu"}
	python := []string{"/usr/lib", "/usr/local/lib", "/opt/*/lib", "/opt/*/.venv/lib", "/opt/*/*/lib"}
	for _, v := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if dir := os.Getenv(v); dir != "" {
			python = append(python, filepath.Join(dir, "lib"))
			folders = append(folders, filepath.Join(dir, "lib"))
		}
	}
	for _, dir := range python {
		for _, packages := range []string{"site-packages", "dist-packages"} {
			folders = append(folders, filepath.Join(dir, "python3*", packages, "nvidia", "*", "lib"))
		}
	}
	list := append([]string{}, names...)
	for _, name := range names {
		for _, folder := range folders {
			// A pattern of this list can't be malformed.
			found, _ := filepath.Glob(filepath.Join(folder, name))
			list = append(list, found...)
		}
	}
	return list
}

// symbols looks up functions into *to, each under the first name that exists.
func (l *library) symbols(table map[*uintptr]string) error {
	var missing []error
	for to, names := range table {
		for _, name := range strings.Fields(names) {
			f, err := purego.Dlsym(l.handle, name)
			if err == nil {
				*to = f
				break
			}
		}
		if *to == 0 {
			missing = append(missing, fmt.Errorf("cuda: %s has no %s", l.path, names))
		}
	}
	return errors.Join(missing...)
}
