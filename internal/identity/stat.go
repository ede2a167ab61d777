package identity

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// The fields of /proc/PID/stat behind the name of the command, counted from 0: the
// state is the third field of all, and the first of these.
const (
	stateField   = 0
	threadsField = 17
	startField   = 19
)

// parseStat reads /proc/PID/stat. A command may have any name, parentheses and
// spaces included, but nothing behind it has a parenthesis.
func parseStat(text []byte) (s stat, err error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= startField || len(fields[stateField]) != 1 {
		return s, fmt.Errorf("identity: %.64q is not what /proc says of a process", text)
	}
	s.state = fields[stateField][0]
	var threadsErr, startErr error
	s.threads, threadsErr = strconv.Atoi(string(fields[threadsField]))
	s.start, startErr = strconv.ParseUint(string(fields[startField]), 10, 64)
	return s, errors.Join(threadsErr, startErr)
}
