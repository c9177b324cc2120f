//go:build linux

package cuda

import (
	"fmt"
	"strings"
	"unsafe"
)

// unit is what is compiled at once: a source with its macros. It does not name the op: ops that
// have a source in common, as those of matrix products do, share the compiled code.
type unit struct {
	text    string
	options []string
}

func newUnit(source, arch string, defines map[string]string) unit {
	return unit{common + "\n#line 1 \"op\"\n" + source, options(arch, defines)}
}

// key is the same for units that compile to the same code.
func (u unit) key() string { return strings.Join(u.options, "\n") + "\n" + u.text }

// modules are the units that a device has loaded, each of them once.
type modules struct {
	load   func(op string, u unit) (uintptr, error)
	loaded map[string]uintptr // by key
}

// of is the module of a unit, for an op.
func (m *modules) of(op string, u unit) (uintptr, error) {
	key := u.key()
	if module, ok := m.loaded[key]; ok {
		return module, nil
	}
	module, err := m.load(op, u)
	if err != nil {
		return 0, err
	}
	if m.loaded == nil {
		m.loaded = map[string]uintptr{}
	}
	m.loaded[key] = module
	return module, nil
}

// load compiles a unit and loads it in the GPU's context, which is current.
func load(drv *driver, c *compiler, op string, u unit) (module uintptr, err error) {
	code, err := c.build(op+".cu", u)
	if err != nil {
		return 0, err
	}
	if err := drv.call("cuModuleLoadData", drv.moduleLoadData, uintptr(unsafe.Pointer(&module)), uintptr(unsafe.Pointer(&code[0]))); err != nil {
		return 0, fmt.Errorf("%w: %s", err, op)
	}
	return module, nil
}
