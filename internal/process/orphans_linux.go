package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// AdoptOrphans makes the kernel hand the orphans of all descendants to this
// process, as it does of itself for the first process of a container.
func AdoptOrphans() error {
	if os.Getpid() == 1 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}

func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// killStrays kills the children of this process that it did not start: orphans
// of a command that have left its group. It reports whether there was any; what
// they leave behind comes here next. What was there before the Reaper is left
// alone, such as what a script had started that this process took the place of.
func (r *Reaper) killStrays() (found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reap() // and nobody else does meanwhile, so that a number is still its own
	for _, pid := range children() {
		if r.groups[pid] == nil && !r.before[pid] {
			found = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return found
}

// children are the children of this process, as far as the kernel tells.
func children() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children") // fails only for a bad pattern
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended, or this kernel has no such file
		}
		for field := range bytes.FieldsSeq(text) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
