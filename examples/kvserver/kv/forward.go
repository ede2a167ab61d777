package kv

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/tidwall/redcon"
)

// Forwarding, one command or transaction at a time, in the order in which the
// client sent them. What has no answer from the other server, and may have come
// to it, is never sent again: its client is told UNKNOWN. What was answered
// READONLY changed nothing, and is sent again until that server leads.

// maxHops bounds the servers that a command goes through: two that each take the
// other for the leader must not pass it on for ever.
const maxHops = 4

// hopCommand tells a server, once for each connection, through how many others
// its commands have come.
const hopCommand = "fencepost.hops"

func makeHop(args [][]byte) (op, error) {
	hops, ok := parseInteger(args[0])
	if !ok || hops < 1 || hops > maxHops {
		return op{}, fmt.Errorf("ERR %s wants 1 to %d", hopCommand, maxHops)
	}
	return local(func(s *session) []byte {
		s.hops = int(hops)
		return redcon.AppendOK(nil)
	})
}

// A request is what one unit sends: its commands, of which the last one's reply
// is the client's.
type request struct {
	text    []byte
	replies int
}

// requestOf returns what u sends.
func requestOf(u unit) (r request) {
	add := func(args ...[]byte) {
		r.text = redcon.AppendArray(r.text, len(args))
		for _, arg := range args {
			r.text = redcon.AppendBulk(r.text, arg)
		}
		r.replies++
	}
	if u.exec {
		add([]byte("MULTI"))
	}
	for _, o := range u.ops {
		add(o.args...)
	}
	if u.exec {
		add([]byte("EXEC"))
	}
	return r
}

// forward runs a batch at another server and appends the replies.
func (s *session) forward(ctx context.Context, leader string, b batch, late time.Time) {
	for len(b) > 0 {
		if !b[:1].touchesData() {
			s.replyAll(b[:1], nil, nil)
			b = b[1:]
			continue
		}
		n := b.forwardable()
		answers, fate := s.relay(ctx, leader, late, b[:n])
		for _, a := range answers {
			s.out = append(s.out, a...)
		}
		switch rest := b[len(answers):n]; {
		case fate != nil:
			for _, u := range rest {
				s.out = append(s.out, fate(u)...)
			}
		case len(rest) > 0: // it is this server that leads now
			s.runBatch(ctx, rest, late)
		}
		b = b[n:]
		if len(s.out) > maxBuffered {
			_ = s.send() // as in run
		}
	}
}

func (b batch) touchesData() bool {
	data, _ := b.needs()
	return data
}

// forwardable is how many units from the first on go to the other server.
func (b batch) forwardable() (n int) {
	for n < len(b) && b[n:n+1].touchesData() {
		n++
	}
	return n
}

// relay sends units until they are answered, and returns the answers; fate is
// the reply to each unit without one. It is nil if this server leads by now: units
// without an answer have changed nothing then, and are to be run here.
func (s *session) relay(ctx context.Context, leader string, late time.Time, units []unit) (answers [][]byte, fate func(unit) []byte) {
	wait := time.Millisecond
	for {
		var err error
		if s.up, err = s.up.to(ctx, leader, s.hops+1); err != nil {
			fate = always(errorLine(fmt.Sprintf("%s fencepost: not leading: %s leads, and can't be reached: %v", prefixReadOnly, leader, err)))
		} else {
			todo := units[len(answers):]
			if !s.up.leads { // what comes later must not be done before what is sent again
				todo = todo[:1]
			}
			var got [][]byte
			got, err = s.up.exchange(todo, s.server.cfg.ForwardTimeout)
			if err != nil {
				s.up.close()
				s.up = nil
				return append(answers, got...), unanswered(leader, err)
			}
			stand := done(got)
			answers = append(answers, got[:stand]...)
			s.up.leads = stand == len(got)
			switch {
			case len(answers) == len(units):
				return answers, nil
			case s.up.leads:
				continue
			}
			fate = always(got[stand])
		}
		if s.hops+1 >= maxHops || time.Now().Add(wait).After(late) || ctx.Err() != nil {
			return answers, fate
		}
		pause(ctx, wait)
		wait = min(2*wait, 50*time.Millisecond)
		if p, changed, err := s.server.where(); err == nil && changed == nil && p.leader != "" {
			leader = p.leader
		} else if p.term != nil {
			p.term.running.Done()
			return answers, nil
		}
	}
}

func always(reply []byte) func(unit) []byte { return func(unit) []byte { return reply } }

// unanswered returns the reply to a unit that was forwarded and may have been
// run.
func unanswered(leader string, err error) func(unit) []byte {
	text := fmt.Sprintf("the command was forwarded to %s, and no answer came: %v", leader, err)
	return func(u unit) []byte {
		if _, writes := (batch{u}).needs(); writes {
			return errorLine(prefixUnknown + " outcome: " + text)
		}
		return errorLine("ERR nothing was read: " + text)
	}
}

// done returns how many of the replies stand. Those behind did nothing, for want
// of a leader, and can be sent again; but not where one in between did something.
func done(replies [][]byte) int {
	n := len(replies)
	for n > 0 && bytes.HasPrefix(replies[n-1], []byte("-"+prefixReadOnly+" ")) {
		n--
	}
	return n
}
