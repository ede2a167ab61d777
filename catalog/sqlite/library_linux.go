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
	var shm, st unix.Stat_t
	if unix.Stat(path+"-shm", &shm) != nil {
		return nil
	}
	folder, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	names, _ := folder.Readdirnames(-1)
	_ = folder.Close() // only read
	open := 0
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err == nil && unix.Fstat(fd, &st) == nil && st.Dev == shm.Dev && st.Ino == shm.Ino {
			open++
		}
	}
	if open > 1 {
		return fmt.Errorf("%w: %d times %s-shm", errTwoLibraries, open, path)
	}
	return nil
}

// mapped reports whether a file with such a name is in this process's memory, as a
// shared library is.
func mapped(name string) bool {
	table, err := os.ReadFile("/proc/self/maps")
	return err != nil || bytes.Contains(table, []byte(name))
}
