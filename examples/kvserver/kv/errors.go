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

// failure is the reply to every command of a batch that failed with err.
func failure(err error) []byte { return errorLine(failureText(err)) }

func failureText(err error) string {
	var fenced *fence.Error
	var standby *notLeading
	switch {
	case catalog.OutcomeOf(err) == driver.Unknown:
		return fmt.Sprintf("%s outcome: the write may have landed or may land later, and this server does not try it again: %v", prefixUnknown, err)
	case errors.As(err, &fenced):
		return fencedText(fenced)
	case errors.As(err, &standby):
		return prefixReadOnly + " " + standby.Error()
	case errors.Is(err, catalog.ErrClosed), errors.Is(err, errDrained), errors.Is(err, context.Canceled):
		return prefixReadOnly + " fencepost: not leading (the server is ending): nothing was written"
	case errors.Is(err, driver.ErrTooLarge):
		return fmt.Sprintf("ERR too large, nothing was written: %v", err)
	case errors.Is(err, driver.ErrFull):
		return fmt.Sprintf("OOM nothing was written: %v", err)
	default:
		return fmt.Sprintf("ERR nothing was written: %v", err)
	}
}

// fencedText names the reason first, then both tokens.
func fencedText(e *fence.Error) string {
	reason := "fenced by epoch:"
	if e.Superseded() {
		reason = "superseded by"
	}
	return fmt.Sprintf("%s %s %v of %v: this server held %v, and nothing was written",
		prefixFenced, reason, e.Current, e.By, e.Held)
}
