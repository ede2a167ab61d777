package fence

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	maxText  = 41 // bytes of the longest token
	maxShown = 64 // bytes that are kept of what a stranger gave
)

// A given is a token as it came with a request.
type given struct {
	token     Token
	signature []byte // nil if there is none; not verified
}

// TokenOf reads the token that a request gave to a guard: exactly one text, which is
// exactly what [Token.String] or [Signer.Text] writes. It verifies no signature:
// [Gate.AdmitText] does. Its error is a *[TokenError].
func TokenOf(guard string, texts []string) (Token, error) {
	g, err := givenBy(guard, texts)
	return g.token, err
}

func givenBy(guard string, texts []string) (given, error) {
	refused := func(err error) (given, error) {
		e := &TokenError{Guard: guard, Err: err}
		if len(texts) > 0 {
			e.Token = shown(texts[0])
		}
		return given{}, e
	}
	switch {
	case len(texts) == 0 || len(texts) == 1 && texts[0] == "":
		return refused(ErrMissing)
	case len(texts) > 1:
		return refused(fmt.Errorf("%w: it was given %d times, want once", ErrMalformed, len(texts)))
	}
	g, err := parseGiven(texts[0])
	switch {
	case err != nil:
		return refused(err)
	case g.token.IsZero():
		return refused(ErrNeverIssued)
	}
	return g, nil
}

// parseGiven reads a token, and a signature if one follows.
func parseGiven(s string) (g given, err error) {
	text, signature, signed := strings.Cut(s, signatureMark)
	if g.token, err = Parse(text); err != nil || !signed {
		return g, err
	}
	if len(signature) == maxSignature {
		g.signature, err = base64.RawURLEncoding.Strict().DecodeString(signature)
	}
	if err != nil || len(g.signature) != ed25519.SignatureSize {
		return given{}, fmt.Errorf("%w: what follows %s is no signature, want %d characters of base64", ErrMalformed, text+signatureMark, maxSignature)
	}
	return g, nil
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
