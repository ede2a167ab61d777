package driver

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/fence"
)

// An ID names one commit: 128 random bits. The ID of a claim is the ID of its
// own commit. The zero ID names none. Its text form is 32 hexadecimal digits
// in lower case.
type ID [16]byte

// NewID returns an ID that no other commit has.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // never fails: see crypto/rand
	return id
}

// IsZero reports whether id names no commit.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the text form.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads the text form.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("driver: a commit id of %d characters, want %d", len(text), hex.EncodedLen(len(id)))
	}
	var read ID
	if _, err := hex.Decode(read[:], text); err != nil {
		return fmt.Errorf("driver: not a commit id: %q: %w", text, err)
	}
	if read.String() != string(text) {
		return fmt.Errorf("driver: not a commit id: %q, want lower case", text)
	}
	*id = read
	return nil
}

// A Head says who holds the token and how long the log is. The zero Head is
// that of a catalog that nobody ever claimed.
//
// Its encoding is frozen: every binary, older or newer, reads it, so that an
// old process that meets a newer catalog learns that it is superseded.
type Head struct {
	Revision uint64 `json:"revision"` // of the newest commit; the length of the log
	Commit   ID     `json:"commit"`   // of the newest commit
	Claim    Claim  `json:"claim"`    // the newest claim
}

// IsZero reports whether nobody ever claimed.
func (h Head) IsZero() bool { return h.Claim.Token.IsZero() }

// After returns the head that follows h when rec is appended.
func (h Head) After(rec Record) Head {
	h.Revision, h.Commit = rec.Revision, rec.ID
	return h
}

// A Claim is one installation of a token. Together the claims of a catalog
// form a chain, which is never compacted: each names its predecessor and the
// last commit made under it. Its encoding is frozen, like that of [Head].
type Claim struct {
	Token       fence.Token  `json:"token"`
	ID          ID           `json:"id"`           // also the ID of the claim's commit
	Revision    uint64       `json:"revision"`     // of the claim's commit
	DataVersion uint64       `json:"data_version"` // of the data once the claim has landed
	ReadableBy  uint64       `json:"readable_by"`  // the oldest data version a build must know to read them
	Holder      fence.Holder `json:"holder"`
	PriorClaim  ID           `json:"prior_claim"`  // the claim before; zero for the first
	PriorCommit ID           `json:"prior_commit"` // the last commit before this one's; zero for the first
	Reason      string       `json:"reason,omitempty"`
}

// Head returns the head right after c.
func (c Claim) Head() Head { return Head{Revision: c.Revision, Commit: c.ID, Claim: c} }

// A Record is one commit in the log. The payload is package catalog's.
type Record struct {
	Revision uint64
	ID       ID
	Token    fence.Token // under which it was committed
	Payload  []byte
}

// A Note is a small record on the board. Version is an opaque number that
// differs after every write; zero means that there is no such note.
type Note struct {
	Key     string
	Value   []byte
	Version int64
}

var (
	errNoHead  = fmt.Errorf("%w: not a head", ErrCorrupt)
	errNoClaim = fmt.Errorf("%w: not a claim", ErrCorrupt)
)

// MarshalClaim returns the frozen text form of a claim: JSON in a fixed order,
// the same bytes for the same claim.
func MarshalClaim(c Claim) ([]byte, error) {
	c.Holder.Since = timestamp(c.Holder.Since)
	return json.Marshal(c)
}

// UnmarshalClaim reads what MarshalClaim wrote. Its errors wrap [ErrCorrupt].
func UnmarshalClaim(text []byte) (Claim, error) {
	var c Claim
	err := unmarshal(text, &c)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Claim{}, fmt.Errorf("%w: %w", errNoClaim, err)
	}
	return c, nil
}

// check refuses what no claim can be.
func (c Claim) check() error {
	if c.Token.Generation == 0 || c.Token.Epoch == 0 || c.ID.IsZero() || c.Revision == 0 {
		return fmt.Errorf("token %v, id %v, revision %d of a claim", c.Token, c.ID, c.Revision)
	}
	if year := c.Holder.Since.UTC().Year(); year < 0 || year > 9999 {
		return fmt.Errorf("a claim in the year %d", year)
	}
	return nil
}

// A ClaimMemo reads claims and remembers the last one: the heads of a catalog
// bear the same claim for long. Its methods may be called concurrently.
type ClaimMemo struct {
	last atomic.Pointer[readClaim]
}

type readClaim struct {
	text  string
	claim Claim
}

// Unmarshal returns what [UnmarshalClaim] does.
func (m *ClaimMemo) Unmarshal(text string) (Claim, error) {
	if last := m.last.Load(); last != nil && last.text == text {
		return last.claim, nil
	}
	c, err := UnmarshalClaim([]byte(text))
	if err == nil {
		m.last.Store(&readClaim{text, c})
	}
	return c, err
}

// MarshalHead returns the frozen text form of a head, for stores that keep it
// in one piece.
func MarshalHead(h Head) ([]byte, error) {
	h.Claim.Holder.Since = timestamp(h.Claim.Holder.Since)
	return json.Marshal(h)
}

// UnmarshalHead reads what MarshalHead wrote. Its errors wrap [ErrCorrupt].
func UnmarshalHead(text []byte) (Head, error) {
	var h Head
	if err := unmarshal(text, &h); err != nil {
		return Head{}, fmt.Errorf("%w: %w", errNoHead, err)
	}
	if err := h.Check(); err != nil {
		return Head{}, err
	}
	return h, nil
}

// Check refuses what no head can be: only the claim's own commit stands at the
// claim's revision. Its error wraps [ErrCorrupt].
func (h Head) Check() error {
	if err := h.Claim.check(); err != nil {
		return fmt.Errorf("%w: %w", errNoHead, err)
	}
	own := h.Commit == h.Claim.ID
	if h.Commit.IsZero() || h.Revision < h.Claim.Revision || own != (h.Revision == h.Claim.Revision) {
		return fmt.Errorf("%w: revision %d, commit %v after claim %v at revision %d",
			errNoHead, h.Revision, h.Commit, h.Claim.ID, h.Claim.Revision)
	}
	return nil
}

func unmarshal(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more after its end")
	}
	return nil
}

// timestamp returns t as the encodings keep it: UTC, whole microseconds.
func timestamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
