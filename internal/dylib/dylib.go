//go:build linux

package dylib

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebitengine/purego"
)

// Library is a shared library that was opened at run time.
type Library struct {
	// Path is where it was found; a bare name means that the dynamic linker found it.
	Path   string
	handle uintptr
}

// Open opens the first of names that is found: first where the dynamic linker looks, then in the
// folders of CUDA toolkits and of Python's NVIDIA packages.
func Open(names ...string) (*Library, error) {
	folders := libraryFolders()
	candidates := append([]string{}, names...)
	for _, name := range names {
		for _, folder := range folders {
			// None of these patterns is malformed.
			found, _ := filepath.Glob(filepath.Join(folder, name))
			candidates = append(candidates, found...)
		}
	}
	var last error
	for _, path := range candidates {
		h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
		if err == nil {
			return &Library{path, h}, nil
		}
		if filepath.IsAbs(path) {
			last = err // it exists but can't be loaded
		}
	}
	if last != nil {
		return nil, fmt.Errorf("%s can't be opened: %w", names[0], last)
	}
	return nil, &Missing{names, fmt.Sprintf("where the dynamic linker looks, in %s, and in site-packages/nvidia/*/lib of the Pythons under %s",
		strings.Join(toolkits, ", "), strings.Join(pythons, ", "))}
}

// The folders of CUDA toolkits and drivers, and those of Python installations that may have
// NVIDIA's packages.
var (
	toolkits = []string{"/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/usr/local/cuda*/targets/*/lib", "/usr/local/nvidia/lib64", "/usr/lib/*-linux-gnu"}
	pythons  = []string{"/usr/lib", "/usr/local/lib", "/opt/*/lib", "/opt/*/.venv/lib", "/opt/*/*/lib"}
)

// libraryFolders returns patterns of the folders that CUDA toolkits and Python's NVIDIA packages
// use.
func libraryFolders() []string {
	folders, python := slices.Clone(toolkits), slices.Clone(pythons)
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
	return folders
}

// Symbols looks up functions or variables and stores their addresses in *to. Each has a list of
// names, separated by spaces, of which the first that exists is used.
func (l *Library) Symbols(table map[*uintptr]string) error {
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
			missing = append(missing, fmt.Errorf("%s has no %s", l.Path, names))
		}
	}
	return errors.Join(missing...)
}
