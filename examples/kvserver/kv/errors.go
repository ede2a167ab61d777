package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidwall/redcon"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// The words that the server's own errors begin with. A client that sees another
// one than UNKNOWN knows that its command changed nothing.
const (
	prefixReadOnly = "READONLY" // not leading; client libraries go and look for the leader
	prefixFenced   = "FENCED"   // the token is lost, for good
	prefixUnknown  = "UNKNOWN"  // the write may have landed, or may land later
)

// notLeading is why a server admits no data command.
type notLeading struct{ why string }

func (e *notLeading) Error() string {
	return "fencepost: not leading " + e.why
}

// errorLine returns an error as the protocol has it: one line.
func errorLine(text string) []byte { return redcon.AppendError(nil, text) }

// failure is the reply to a command, or to a transaction, of a batch that failed
// with err. A read has no outcome, so that its reply says nothing about writes.
func failure(err error, writes bool) []byte {
	if writes {
		return errorLine(writeFailure(err))
	}
	return errorLine(readFailure(err))
}

func writeFailure(err error) string {
	switch {
	case catalog.OutcomeOf(err) == driver.Unknown:
		return fmt.Sprintf("%s outcome: the write may have landed or may land later, and this server does not try it again: %v", prefixUnknown, err)
	case errors.Is(err, driver.ErrTooLarge):
		return fmt.Sprintf("ERR too large, nothing was written: %v", err)
	case errors.Is(err, driver.ErrFull):
		return fmt.Sprintf("OOM nothing was written: %v", err)
	}
	if text, ok := notServed(err, "nothing was written"); ok {
		return text
	}
	return fmt.Sprintf("ERR nothing was written: %v", err)
}

func readFailure(err error) string {
	if text, ok := notServed(err, "nothing was read"); ok && catalog.OutcomeOf(err) != driver.Unknown {
		return text
	}
	return fmt.Sprintf("ERR nothing was read: %v", err)
}

// notServed returns the reply if err says that this server does not lead, or no
// longer does.
func notServed(err error, effect string) (text string, ok bool) {
	var fenced *fence.Error
	var standby *notLeading
	switch {
	case errors.As(err, &fenced):
		return fencedText(fenced, effect), true
	case errors.As(err, &standby):
		return prefixReadOnly + " " + standby.Error(), true
	case errors.Is(err, catalog.ErrClosed), errors.Is(err, errDrained), errors.Is(err, context.Canceled):
		return prefixReadOnly + " fencepost: not leading (the server is ending): " + effect, true
	}
	return "", false
}

// fencedText names the reason first, then both tokens.
func fencedText(e *fence.Error, effect string) string {
	reason := "fenced by epoch:"
	if e.Superseded() {
		reason = "superseded by"
	}
	held := "this server held " + e.Held.String()
	if e.Held.Epoch == 0 {
		held = "this server held no token"
	}
	return fmt.Sprintf("%s %s %v of %v: %s, and %s", prefixFenced, reason, e.Current, e.By, held, effect)
}
