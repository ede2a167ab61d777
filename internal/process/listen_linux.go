package process

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// longestWord is how many bytes of a message count; systemd's own bound.
const longestWord = 4096

// Listen listens for what children say, at an address for their NOTIFY_SOCKET. The
// address is abstract: it needs no folder, and no path that may be too long for a
// socket. Every user of the host can find it and send to it: a Word has its sender, by
// which the caller decides. The func that it returns stops it, and joins.
func Listen() (name string, words <-chan Word, stop func(), err error) {
	name = "@fencepost-" + rand.Text()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return "", nil, nil, err
	}
	if err := askForSenders(conn); err != nil {
		_ = conn.Close()
		return "", nil, nil, err
	}
	heard, done := make(chan Word), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { listen(conn, heard, done) })
	return name, heard, func() {
		close(done)
		_ = conn.Close()
		wg.Wait()
	}, nil
}

// askForSenders makes the kernel say who sent a message.
func askForSenders(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return errors.Join(err, failed)
}

// listen hands on messages until the socket is closed.
func listen(conn *net.UnixConn, heard chan<- Word, done <-chan struct{}) {
	text := make([]byte, longestWord)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, m, _, _, err := conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		from, err := sender(control[:m])
		if err != nil {
			continue
		}
		select {
		case heard <- Word{PID: int(from.Pid), UID: int(from.Uid), Text: string(text[:n])}:
		case <-done:
			return
		}
	}
}

func sender(control []byte) (*unix.Ucred, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return cred, nil
		}
	}
	return nil, fmt.Errorf("none of %d control messages names the sender", len(messages))
}
