// Package testpipe makes what a process writes to and nobody reads, for tests.
package testpipe

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Full returns a pipe that is full: a write to it waits until somebody reads. Both
// ends are closed with the test.
func Full(t testing.TB) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = reader.Close(); _ = writer.Close() })
	Fill(t, writer)
	return reader, writer
}

// Fill writes to a pipe that does not block until it is full.
func Fill(t testing.TB, writer *os.File) {
	t.Helper()
	conn, err := writer.SyscallConn()
	require.NoError(t, err)
	some := make([]byte, 1<<12)
	var full error
	err = conn.Write(func(fd uintptr) bool {
		for full == nil {
			_, full = syscall.Write(int(fd), some)
		}
		for full = nil; full == nil; { // the last bytes
			_, full = syscall.Write(int(fd), some[:1])
		}
		return true
	})
	require.NoError(t, err)
	require.ErrorIs(t, full, syscall.EAGAIN)
}

// FIFO returns the path of a named pipe that nobody has opened.
func FIFO(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	return path
}

// FullFIFO returns the path of a named pipe that is open for reading, and full.
func FullFIFO(t testing.TB) string {
	t.Helper()
	path := FIFO(t)
	both, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = both.Close() })
	Fill(t, both)
	return path
}

// FullSocket returns the path of a datagram socket, as a service manager has it,
// whose queue is full.
func FullSocket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // the path of a socket is short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	addr := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	reader, err := net.ListenUnixgram("unixgram", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = reader.Close() })
	writer, err := net.DialUnix("unixgram", nil, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = writer.Close() })
	file, err := writer.SyscallConn()
	require.NoError(t, err)
	var full error
	require.NoError(t, file.Write(func(fd uintptr) bool {
		for full == nil {
			_, full = syscall.Write(int(fd), []byte("X=1"))
		}
		return true
	}))
	require.ErrorIs(t, full, syscall.EAGAIN)
	return addr.Name
}
