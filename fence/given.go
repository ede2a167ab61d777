package fence

import (
	"fmt"
	"unicode/utf8"
)

const (
	maxText  = 41 // bytes of the longest token
	maxShown = 64 // bytes that are kept of what a stranger gave
)

// TokenOf reads the token that a request gave to a guard: exactly one text, which is
// exactly what [Token.String] writes. Its error is a *[TokenError].
func TokenOf(guard string, given []string) (Token, error) {
	refused := func(text string, err error) (Token, error) {
		return Token{}, &TokenError{Guard: guard, Token: shown(text), Err: err}
	}
	switch {
	case len(given) == 0 || len(given) == 1 && given[0] == "":
		return refused("", ErrMissing)
	case len(given) > 1:
		return refused(given[0], fmt.Errorf("%w: it was given %d times, want once", ErrMalformed, len(given)))
	}
	t, err := Parse(given[0])
	switch {
	case err != nil:
		return refused(given[0], err)
	case t.IsZero():
		return refused(given[0], ErrNeverIssued)
	}
	return t, nil
}

// shown returns the beginning of a text, and no part of a character.
func shown(s string) string {
	if len(s) <= maxShown {
		return s
	}
	n := maxShown
	for n > maxShown-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
