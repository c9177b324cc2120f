package checkpoint

import "os"

// Opener opens checkpoints as the functions Load, Describe and Newest do.
type Opener struct {
	// Watch is told what is read, from several files at once, including later reads of a
	// checkpoint's tensors.
	Watch Watch
}

// Load is like the function of that name.
func (o Opener) Load(dir string) (*Checkpoint, error) {
	m, err := verify(o.Watch, dir)
	if err != nil {
		return nil, err
	}
	return o.checkpoint(dir, m), nil
}

// Describe is like the function of that name.
func (o Opener) Describe(dir string) (*Checkpoint, error) {
	m, err := readManifest(o.Watch, dir)
	if err != nil {
		return nil, err
	}
	return o.checkpoint(dir, m), nil
}

func (o Opener) checkpoint(dir string, m manifest) *Checkpoint {
	return &Checkpoint{Dir: dir, State: m.state(), SavedAt: m.SavedAt, files: m.Files, pieces: m.Pieces, watch: o.Watch}
}

// reads tells the watch what is read; a nil watch ignores it.
func (w Watch) reads(what string) (done func()) {
	if w == nil {
		return func() {}
	}
	return w("reading " + what)
}

// watchedReader watches each read of a file.
type watchedReader struct {
	file  *os.File
	watch Watch
}

func (r watchedReader) Read(p []byte) (int, error) {
	defer r.watch.reads(r.file.Name())()
	return r.file.Read(p)
}
