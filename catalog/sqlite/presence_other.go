//go:build !linux

package sqlite

import "os"

func lockByte(*os.File, int64) error { return errNoPresence }

func isLocked(*os.File, int64) (bool, error) { return false, errNoPresence }
