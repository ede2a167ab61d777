//go:build unix

package lead

import "github.com/fencepost/fencepost/internal/process"

// Speaks reports whether a word counts as a command's, whose group is given.
func Speaks(w process.Word, group int) bool { return speaks(w, group) }
