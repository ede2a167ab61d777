package entrypoint

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes the kernel hand the orphans of all descendants to this
// process, as it does of itself for the first process of a container.
func adoptOrphans() error {
	if os.Getpid() == 1 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}
