package errormatrix

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
)

// nobody is a user without rights.
const nobody = 65534

// provokeRights has a user without rights come to the file.
func (x *matrix) provokeRights(t *testing.T, program string) {
	for _, c := range []struct {
		code, do   string
		dir, files os.FileMode
		left       bool // what a process that crashed leaves: a WAL and its index
	}{
		{"EACCES", "head", 0o700, 0o644, false},
		{"14", "head", 0o755, 0o600, false},
		{"1544", "head", 0o555, 0o444, false},
		{"1544", "claim", 0o555, 0o666, false},
		{"8", "append", 0o777, 0o444, false},
		{"8", "claim", 0o777, 0o444, true},
	} {
		dir, err := os.MkdirTemp("", "errormatrix-") // beneath a test's own folder, nobody sees anything
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
		x.inFile(t, fmt.Sprintf("%s as nobody, %v %v", c.do, c.dir, c.files), dir, func(l *lite) {
			if c.left {
				l.leave()
			}
			well := l.open()
			head := drivertest.ReadHead(l.t, well)
			require.NoError(l.t, well.Close())
			if !c.left {
				l.raw(`PRAGMA wal_checkpoint(TRUNCATE)`)
			}
			files, err := filepath.Glob(l.path + "*")
			require.NoError(l.t, err)
			for _, f := range files {
				require.NoError(l.t, os.Chmod(f, c.files))
			}
			if c.dir == 0o777 {
				require.NoError(l.t, os.Chmod(l.path+"-claim", 0o666))
			}
			require.NoError(l.t, os.Chmod(dir, c.dir))
			somebody := start(l.t, program, nobody)
			if c.do == "append" {
				x.answered(l.t, c.code, somebody.append(l.ledger, l.path, head, 10))
				return
			}
			x.answered(l.t, c.code, somebody.do(order{Path: l.path, Do: c.do}))
		})
	}
}

// leave has the WAL and its index lie beside the file, as after a crash.
func (l *lite) leave() {
	l.t.Helper()
	s := l.open()
	require.NoError(l.t, l.commit(s, 10))
	kept := map[string][]byte{}
	for _, name := range []string{l.path, l.path + "-wal", l.path + "-shm"} {
		b, err := os.ReadFile(name)
		require.NoError(l.t, err)
		kept[name] = b
	}
	require.NoError(l.t, s.Close())
	for name, b := range kept {
		require.NoError(l.t, os.WriteFile(name, b, 0o600))
	}
}

// A fault is a system call about one of the files that fails.
type fault struct {
	code, file, calls, number string
	do                        string
	opened                    bool // the store was used before
}

func faults() []fault {
	return []fault{
		{"778", "-wal", "pwrite64", "EIO", "append", true},
		{"13", "-wal", "pwrite64", "ENOSPC", "append", true},
		{"1034", "-wal", "fsync,fdatasync", "EIO", "append", true},
		{"10", "", "pread64", "EIO", "head", false},
		{"11", "-wal", "pread64", "EIO", "head", true}, // SQLite takes a failed read for damage
		{"266", "-wal", "pread64", "EREMOTEIO", "head", true},
		{"1802", "-wal", "fstat", "EIO", "head", false},
		{"3850", "", "fcntl", "EIO", "head", false},
		{"2058", "", "fcntl", "EIO:when=4+", "head", false},
		{"5386", "-shm", "mmap", "ENOMEM", "head", false},
		{"4618", "-shm", "ftruncate", "EIO", "append", false},
		{"4874", "-shm", "pwrite64,write", "EIO", "append", false},
		{"14", "", "open,openat", "EIO", "head", false}, // SQLite does not say why, and nothing of ours opens the file to find out
		{"3", "", "fcntl", "EPERM", "append", false},
		{"14", "", "open,openat", "EMFILE", "head", false},
		{"EIO", "-claim", "flock", "EIO", "claim", true},
		{"EIO", "-claim", "open,openat", "EIO", "claim", false},
	}
}

// provokeCalls makes system calls of a child fail.
func (x *matrix) provokeCalls(t *testing.T, program string) {
	x.inFile(t, "system calls that fail", "", func(l *lite) {
		for i, f := range faults() {
			l.t.Run(fmt.Sprintf("%d %s", i, f.code), func(t *testing.T) {
				c := start(t, program, 0)
				well := l.open()
				head := drivertest.ReadHead(t, well)
				if f.opened {
					require.False(t, c.append(l.ledger, l.path, head, 10).Failed)
					head = drivertest.ReadHead(t, well)
				}
				require.NoError(t, well.Close())
				stop := inject(t, c.cmd.Process.Pid, l.path+f.file, f.calls, f.number)
				var a answer
				if f.do == "append" {
					a = c.append(l.ledger, l.path, head, 10)
				} else {
					a = c.do(order{Path: l.path, Do: f.do})
				}
				stop()
				x.answered(t, f.code, a)
				if f.file == "-wal" && f.do == "append" && f.number == "EIO" {
					require.Equal(t, driver.Unknown, a.Outcome, "what was to be written or synced may be on the disk")
				}
				// The disk is well again, and so is the child's store.
				again := l.open()
				require.False(t, c.append(l.ledger, l.path, drivertest.ReadHead(t, again), 10).Failed)
				require.NoError(t, again.Close())
			})
		}
	})
}
