//go:build unix && !linux

package entrypoint

// adoptOrphans does nothing: orphans go to the first process of the system,
// which reaps them.
func adoptOrphans() error { return nil }
