package dist

// Library is a library that moves numbers between processes.
type Library struct {
	Use     string // what it connects
	Version string // and where it was found
	Err     error  // why it can't be used
}
