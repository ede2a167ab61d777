//go:build unix && !linux && !darwin

package ownfile

// RenameNew gives a file its name, unless another file has it: then the error is
// fs.ErrExist.
func RenameNew(from, to string) error { return linkNew(from, to) }
