//go:build !linux

package sqlite

// isMount is always false: only Linux mounts a single file.
func isMount(string) (bool, error) { return false, nil }
