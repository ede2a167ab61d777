// Package identity names a process so that another process can prove that it has
// ended.
//
// A pid alone proves nothing: it is given to other processes later, and stands for
// different processes in different namespaces and on different hosts. A [Process]
// therefore has all that makes it unique, and [Process.Ended] answers only if this
// process sees the same pids:
//
//	no process has the pid                       ended
//	the process with the pid started otherwise   ended
//	only its exit status is left                 ended
//	anything else                                no proof
//
// Another boot, another host name, another pid namespace, a /proc that belongs to
// another namespace or hides others' processes, and a lack of rights are no proof.
// Only Linux has the namespaces and the start times that this takes; elsewhere no
// process has an identity.
//
// The package doesn't decide what follows an end. A proof is as good as the kernel's
// word that two processes share a boot: virtual machines that were resumed from one
// snapshot share it too, and are told apart only by their host names.
package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// EndedEnv is the variable in which a supervisor tells a process that it starts
// which process ended before it: the text of that one's identity. Only a supervisor
// that has waited for its end sets it.
const EndedEnv = "FENCEPOST_ENDED"

// maxText bounds the text of an identity, in bytes.
const maxText = 128

// A Process is the identity of one process. No other process ever has the same one,
// unless its virtual machine was copied while it ran.
type Process struct {
	boot  string // id of the kernel's boot, a UUID
	host  string // hash of the host name, 8 hexadecimal digits
	pids  uint64 // inode of the pid namespace
	times uint64 // inode of the time namespace by which start is given; 0 if the kernel has none
	pid   int
	start uint64 // clock ticks from the boot to its start, as in /proc/PID/stat
}

// ErrMalformed means that a text is not the identity of a process.
var ErrMalformed = errors.New("identity: malformed")

// PID is the id of the process within its pid namespace.
func (p Process) PID() int { return p.pid }

// IsZero reports whether p is the identity of no process.
func (p Process) IsZero() bool { return p == Process{} }

// String returns the text that [Parse] reads: at most 128 bytes of letters, digits,
// hyphens and full stops. That of the zero Process is empty.
func (p Process) String() string {
	if p.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s.%s.%d.%d.%d.%d", p.boot, p.host, p.pids, p.times, p.pid, p.start)
}

// Parse reads the text of an identity. The error wraps [ErrMalformed].
func Parse(text string) (Process, error) {
	fields := strings.Split(text[:min(len(text), maxText)], ".")
	if len(text) > maxText || len(fields) != 6 || !isBoot(fields[0]) || !isHost(fields[1]) {
		return Process{}, malformed(text)
	}
	p := Process{boot: fields[0], host: fields[1]}
	var errs [4]error
	p.pids, errs[0] = strconv.ParseUint(fields[2], 10, 64)
	p.times, errs[1] = strconv.ParseUint(fields[3], 10, 64)
	pid, err := strconv.ParseUint(fields[4], 10, 31)
	p.pid, errs[2] = int(pid), err
	p.start, errs[3] = strconv.ParseUint(fields[5], 10, 64)
	if errors.Join(errs[:]...) != nil || p.pid == 0 || p.pids == 0 || p.String() != text {
		return Process{}, malformed(text)
	}
	return p, nil
}

func malformed(text string) error {
	return fmt.Errorf("%w: %.64q is not BOOT.HOST.PIDS.TIMES.PID.START", ErrMalformed, text)
}

// isBoot reports whether id has the form of a boot id: 32 hexadecimal digits and
// hyphens between them.
func isBoot(id string) bool {
	digits := strings.ReplaceAll(id, "-", "")
	return len(id) == 36 && len(digits) == 32 && isHex(digits)
}

func isHost(hash string) bool { return len(hash) == hostDigits && isHex(hash) }

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// hostDigits is how many digits of the host name's hash an identity has.
const hostDigits = 8

func hashHost(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])[:hostDigits]
}
