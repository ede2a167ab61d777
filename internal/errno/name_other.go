//go:build !unix

package errno

import "syscall"

// name knows no names here: such an error is one of the network.
func name(syscall.Errno) string { return "" }
