//go:build !linux

package sqlite

import "github.com/fencepost/fencepost/catalog/driver"

// probeDisk can't tell one file system from another here.
func (s *Store) probeDisk() driver.Finding {
	return driver.Finding{
		Name: "file system", Grade: driver.Warning, Detail: "what file system the file is on can't be told on this operating system",
		Remedy: "see that it is a local disk",
	}
}

// checkDisk can't tell here what kind of file system a folder is on.
func checkDisk(string) error { return nil }
