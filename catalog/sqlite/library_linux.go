package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// oneLibrary returns errTwoLibraries if this process has the -shm of the database at
// path open more than once. What it can't look at it takes to be well.
func oneLibrary(path string) error {
	if open := openHere(path + "-shm"); open > 1 {
		return fmt.Errorf("%w: %d times %s-shm", errTwoLibraries, open, path)
	}
	return nil
}

// openHere returns how many descriptors of a file this process has, as far as it can
// tell.
func openHere(name string) (open int) {
	var file, st unix.Stat_t
	if unix.Stat(name, &file) != nil {
		return 0
	}
	folder, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	names, _ := folder.Readdirnames(-1)
	_ = folder.Close() // only read
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err == nil && unix.Fstat(fd, &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			open++
		}
	}
	return open
}

// mapped reports whether a file with such a name is in this process's memory, as a
// shared library is.
func mapped(name string) bool {
	table, err := os.ReadFile("/proc/self/maps")
	return err != nil || bytes.Contains(table, []byte(name))
}
