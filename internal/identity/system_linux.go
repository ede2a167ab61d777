package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func system() view { return view{self: readSelf, signal: signal, stat: readStat} }

func readSelf() (Process, error) {
	pid := os.Getpid()
	if err := procIsMine(pid); err != nil {
		return Process{}, fmt.Errorf("identity: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	host, hostErr := os.Hostname()
	s, statErr := readStat(pid)
	pids, pidsErr := namespace("pid")
	times, timesErr := namespace("time")
	if errors.Is(timesErr, os.ErrNotExist) { // before Linux 5.6
		timesErr = nil
	}
	if err := errors.Join(err, hostErr, statErr, pidsErr, timesErr); err != nil {
		return Process{}, fmt.Errorf("identity: %w", err)
	}
	p := Process{boot: strings.TrimSpace(string(boot)), host: hashHost(host), pids: pids, times: times, pid: pid, start: s.start}
	return Parse(p.String()) // a /proc that is made up may hold anything
}

// procIsMine refuses a /proc that shows the pids of another namespace. In an outer
// one this process may have the same number by chance, but has two.
func procIsMine(pid int) error {
	want := strconv.Itoa(pid)
	link, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(status) {
		if ids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok && link == want {
			link = string(bytes.TrimSpace(ids))
		}
	}
	if link != want {
		return fmt.Errorf("/proc is of another pid namespace: it calls this process %.64q, which is %s", link, want)
	}
	return nil
}

// namespace returns the inode of this process's namespace of a kind.
func namespace(kind string) (uint64, error) {
	var st unix.Stat_t
	path := "/proc/self/ns/" + kind
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// signal asks whether a process has pid. One that this process may not signal is
// there.
func signal(pid int) error {
	err := syscall.Kill(pid, 0)
	if errors.Is(err, syscall.ESRCH) {
		return errGone
	}
	return err
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(text)
}

// awaitEnd waits until the process with this pid has ended, or ctx has. A descriptor
// of a process becomes readable once its last thread has ended.
func awaitEnd(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the runtime's poller
		_ = unix.Close(fd) // nothing was written
		return err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil { // the poller does not take it
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) }) // it was set before
	defer stop()
	var polled error
	err = conn.Read(func(fd uintptr) (done bool) {
		done, polled = readable(int(fd))
		return done || polled != nil
	})
	return errors.Join(err, polled)
}

// readable reports whether a descriptor can be read, without waiting for it.
func readable(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	switch {
	case errors.Is(err, unix.EINTR):
		return readable(fd)
	case err != nil || n == 0:
		return false, err
	case fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0:
		return true, nil
	}
	return false, fmt.Errorf("poll says %#x of a process", fds[0].Revents)
}
