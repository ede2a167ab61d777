//go:build unix

package exitcodes

import (
	"os"
	"syscall"
)

// ownAlone reports whether a file is this process's and has one name only, so that
// another file can take its place without a change for anybody else.
func ownAlone(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && stat.Nlink == 1
}
