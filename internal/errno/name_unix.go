//go:build unix

package errno

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// name returns what the system calls an error. One without a name has its
// number for it, and so no entry.
func name(number syscall.Errno) string {
	if name := unix.ErrnoName(number); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", uint(number))
}
