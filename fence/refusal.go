package fence

import (
	"errors"
	"fmt"
)

var (
	// ErrMissing means that a transaction or request came without a token.
	ErrMissing = errors.New("no token was given")

	// ErrNeverIssued means that no claim of the catalog has installed the token.
	ErrNeverIssued = errors.New("the token was never issued")
)

// A TokenError is a guard's refusal of a token that is not merely stale: it is
// missing, malformed, was never issued or is not signed. It wraps [ErrMissing],
// [ErrMalformed], [ErrNeverIssued] or [ErrUnsigned], and never matches [ErrFenced]: it says nothing about who
// leads. It has no disposition.
type TokenError struct {
	Guard string // that refused, such as "postgres catalog main"
	Token string // as it was given; at most 64 bytes of it
	Err   error
}

func (e *TokenError) Error() string {
	if e.Token == "" {
		return fmt.Sprintf("refused by %s: %v", e.Guard, e.Err)
	}
	return fmt.Sprintf("refused by %s: %v: %.64q", e.Guard, e.Err, e.Token)
}

// Unwrap returns what is wrong with the token.
func (e *TokenError) Unwrap() error { return e.Err }
