//go:build !unix

package runlog

// syncDir does nothing: a folder can't be synced here, and the system orders a rename itself.
func syncDir(string) error { return nil }
