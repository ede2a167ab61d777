//go:build !linux && !darwin

package sqlite

// renameNew gives a file its name, unless another file has it: then the error is
// fs.ErrExist.
func renameNew(from, to string) error { return linkNew(from, to) }
