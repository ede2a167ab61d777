//go:build !linux

package sqlite

import "os"

// lockTries are the kinds of lock that can be tried from one process.
func lockTries() []lockTry { return []lockTry{byFlock()} }

func tryMemory(_, _ *os.File) error { return nil }
