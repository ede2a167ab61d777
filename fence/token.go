package fence

import (
	"bytes"
	"cmp"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/generation"
)

// A Token is the right to write. Tokens are ordered by generation, then by
// epoch. The zero Token is below every token ever issued.
//
// Its text form is g7.e41, which is also its JSON form (a string) and its SQL
// form; its binary form is 16 bytes that sort as tokens do. All are frozen:
// every past and future version of this package reads them.
type Token struct {
	Generation generation.Generation
	Epoch      epoch.Epoch
}

// ErrMalformed means that a text or a run of bytes is not a token.
var ErrMalformed = errors.New("fence: not a token")

// Compare returns -1, 0 or +1 as t is below, equal to or above u. It is the
// one place that says which token wins.
func (t Token) Compare(u Token) int {
	return cmp.Or(cmp.Compare(t.Generation, u.Generation), cmp.Compare(t.Epoch, u.Epoch))
}

// IsZero reports whether t is the token that nobody ever held.
func (t Token) IsZero() bool { return t == Token{} }

// Next returns the token of a claim by g over t: g and the epoch after t's. It
// returns an error that wraps [epoch.ErrOverflow] or [generation.ErrOverflow]
// where a number is spent, and does not ask whether g may claim.
func (t Token) Next(g generation.Generation) (Token, error) {
	if g > generation.Max {
		return Token{}, fmt.Errorf("%w: %d", generation.ErrOverflow, uint64(g))
	}
	e, err := t.Epoch.Next()
	if err != nil {
		return Token{}, err
	}
	return Token{Generation: g, Epoch: e}, nil
}

// CheckRoom returns an error that wraps [generation.ErrNoRoom] or
// [epoch.ErrNoRoom] if too few numbers are above those of t.
func (t Token) CheckRoom() error {
	return errors.Join(t.Generation.CheckRoom(), t.Epoch.CheckRoom())
}

// String returns the text form, such as g7.e41.
func (t Token) String() string { return string(t.appendText(nil)) }

func (t Token) appendText(b []byte) []byte {
	b = append(b, 'g')
	b = strconv.AppendUint(b, uint64(t.Generation), 10)
	b = append(b, '.', 'e')
	return strconv.AppendUint(b, uint64(t.Epoch), 10)
}

// MarshalText returns the text form. It fails where a number is above what the
// stores can hold.
func (t Token) MarshalText() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	return t.appendText(nil), nil
}

// UnmarshalText reads the text form, and only the one that String writes.
func (t *Token) UnmarshalText(text []byte) error {
	u, err := Parse(string(text))
	if err != nil {
		return err
	}
	*t = u
	return nil
}

// Parse reads the text form of a token, and only the one that String writes.
func Parse(s string) (Token, error) {
	malformed := fmt.Errorf("%w: %q, want a form like g7.e41", ErrMalformed, shown(s))
	if len(s) > maxText {
		return Token{}, fmt.Errorf("%w: %d bytes, want %d at most", malformed, len(s), maxText)
	}
	gen, ep, found := bytes.Cut([]byte(s), []byte("."))
	if !found || len(gen) < 2 || len(ep) < 2 || gen[0] != 'g' || ep[0] != 'e' {
		return Token{}, malformed
	}
	g, gerr := strconv.ParseUint(string(gen[1:]), 10, 64)
	e, eerr := strconv.ParseUint(string(ep[1:]), 10, 64)
	t := Token{Generation: generation.Generation(g), Epoch: epoch.Epoch(e)}
	if errors.Is(gerr, strconv.ErrRange) || errors.Is(eerr, strconv.ErrRange) {
		return Token{}, fmt.Errorf("%w: %w", malformed, errOutOfRange)
	}
	if gerr != nil || eerr != nil || t.String() != s {
		return Token{}, malformed
	}
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("%w: %w", malformed, err)
	}
	return t, nil
}

// binarySize is the length of the binary form: two big-endian numbers.
const binarySize = 16

// MarshalBinary returns the 16 bytes of the binary form. bytes.Compare orders
// them as [Token.Compare] orders tokens.
func (t Token) MarshalBinary() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, binarySize), uint64(t.Generation))
	return binary.BigEndian.AppendUint64(b, uint64(t.Epoch)), nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (t *Token) UnmarshalBinary(b []byte) error {
	if len(b) != binarySize {
		return fmt.Errorf("%w: %d bytes, want %d", ErrMalformed, len(b), binarySize)
	}
	u := Token{
		Generation: generation.Generation(binary.BigEndian.Uint64(b)),
		Epoch:      epoch.Epoch(binary.BigEndian.Uint64(b[8:])),
	}
	if err := u.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	*t = u
	return nil
}

// Value implements database/sql/driver.Valuer with the text form.
func (t Token) Value() (driver.Value, error) {
	b, err := t.MarshalText()
	return string(b), err
}

// Scan implements database/sql.Scanner for the text form.
func (t *Token) Scan(src any) error {
	switch v := src.(type) {
	case string:
		return t.UnmarshalText([]byte(v))
	case []byte:
		return t.UnmarshalText(v)
	default:
		return fmt.Errorf("%w: a %T in SQL, want text", ErrMalformed, src)
	}
}

var errOutOfRange = errors.New("a number is above the largest")

func (t Token) check() error {
	switch {
	case t.Generation > generation.Max:
		return fmt.Errorf("%w: %w", errOutOfRange, generation.ErrOverflow)
	case t.Epoch > epoch.Max:
		return fmt.Errorf("%w: %w", errOutOfRange, epoch.ErrOverflow)
	default:
		return nil
	}
}
