package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// isMount reports whether a file is the root of a mount: a single file that was
// mounted there, as into a container.
func isMount(name string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	// A kernel before 5.8, or a filter of system calls.
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("%w: %w", errNoMounts, err)
	}
	return hasMountPoint(table, name), nil
}

// hasMountPoint looks for name in the fifth column of a mountinfo table.
func hasMountPoint(table []byte, name string) bool {
	escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(name)
	for line := range bytes.Lines(table) {
		if f := bytes.Fields(line); len(f) > 4 && string(f[4]) == escaped {
			return true
		}
	}
	return false
}
