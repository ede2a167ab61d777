package kv

import (
	"fmt"
	"strings"

	"github.com/tidwall/redcon"
)

// maxQueued bounds the commands between MULTI and EXEC.
const maxQueued = 10_000

// A transaction is what was queued since MULTI. It runs in one Update, so that
// nobody sees a part of it, and a part of it never lands. As in Redis, a
// command that fails while the transaction runs does not undo the others.
type transaction struct {
	ops    []op
	bytes  int
	spoilt bool // a command could not be queued
}

// transact answers MULTI, EXEC and DISCARD.
func (s *session) transact(name string, args [][]byte) unit {
	if len(args) != 1 {
		if s.multi != nil {
			s.multi.spoilt = true
		}
		return answered(errorLine(wrongArity(name).Error()))
	}
	queued := s.multi
	switch {
	case name == "multi" && queued != nil:
		return answered(errorLine("ERR MULTI calls can not be nested"))
	case name == "multi":
		s.multi = new(transaction)
		return answered(redcon.AppendOK(nil))
	case queued == nil:
		return answered(errorLine("ERR " + strings.ToUpper(name) + " without MULTI"))
	}
	s.multi = nil
	switch {
	case name == "discard":
		return answered(redcon.AppendOK(nil))
	case queued.spoilt:
		return answered(errorLine("EXECABORT Transaction discarded because of previous errors."))
	}
	return unit{ops: queued.ops, exec: true}
}

// queue keeps an op for EXEC, or remembers that one could not be kept.
func (t *transaction) queue(o op, err error, bytes, maxBytes int) unit {
	t.bytes += bytes
	if err == nil && (len(t.ops) >= maxQueued || t.bytes > maxBytes) {
		err = fmt.Errorf("ERR the transaction is too large: at most %d commands and %d bytes", maxQueued, maxBytes)
	}
	if err != nil {
		t.spoilt, t.ops = true, nil
		return answered(errorLine(err.Error()))
	}
	t.ops = append(t.ops, o)
	return answered(redcon.AppendString(nil, "QUEUED"))
}
