//go:build unix && !linux

package process

import "syscall"

// AdoptOrphans does nothing: orphans go to the first process of the system,
// which reaps them.
func AdoptOrphans() error { return nil }

// dieWithParent does nothing: only Linux has a word for it.
func dieWithParent(*syscall.SysProcAttr) {}

// killStrays finds none: orphans are another process's children.
func (r *Reaper) killStrays() bool { return false }

func children() []int { return nil }
