package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// Files of a profile.
const (
	ProfileFile = "cpu.pprof"
	TraceFile   = "trace.json"
)

// profile is the folder of a profile; nil means none.
type profile struct {
	dir string
	cpu *os.File
}

// newProfile creates the folder; for "" it returns nil.
func newProfile(dir string) (*profile, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return &profile{dir: dir}, nil
}

// start starts the CPU profile.
func (p *profile) start() error {
	if p == nil {
		return nil
	}
	var err error
	if p.cpu, err = os.Create(filepath.Join(p.dir, ProfileFile)); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(p.cpu); err != nil {
		return errors.Join(fmt.Errorf("profile: %w", err), p.cpu.Close())
	}
	return nil
}

// stop ends the CPU profile.
func (p *profile) stop() error {
	if p == nil {
		return nil
	}
	pprof.StopCPUProfile()
	if err := p.cpu.Close(); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return nil
}

// write writes the trace of what was recorded, and returns the profile's files.
func (p *profile) write(r *recorder) ([]string, error) {
	path := filepath.Join(p.dir, TraceFile)
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := errors.Join(writeTrace(f, r), f.Close()); err != nil {
		return nil, fmt.Errorf("profile: %s: %w", path, err)
	}
	return []string{p.cpu.Name(), path}, nil
}
