// Package drivertest checks that a driver keeps the contract of package
// driver.
//
// A driver's whole test of it can be:
//
//	func TestStoreKeepsTheContract(t *testing.T) {
//		drivertest.RunStore(t, func(t *testing.T) func(*testing.T) driver.Store {
//			catalog := newEmptyCatalog(t)
//			return func(t *testing.T) driver.Store { return open(t, catalog) }
//		})
//	}
//
// The contract stands here as a list of rules, one sentence each. A rule that
// is broken prints its sentence, so that the author of a driver reads the
// promise and not the assertion alone.
//
// A driver should be a [driver.Scratcher], so that its store is checked before
// the first claim. A store that wraps another one, and changes how it writes,
// opens scratch places of its own: otherwise the check goes past it.
//
// The suite proves what can be seen from outside in some seconds. It doesn't
// prove that an acknowledged commit survives a crash, that a dead claimer
// releases the others, or that every error of a client is classified: each
// driver has tests of its own for these.
package drivertest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// Patience is how long the suite waits for what must happen.
const Patience = 30 * time.Second

// Context returns a context that ends with the test, and after three times
// [Patience] at the latest: calls of a store must have a deadline.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*Patience)
	t.Cleanup(cancel)
	return ctx
}

// Install claims s for generation g, with the epoch after the one in the head
// and an empty payload, and returns the new head.
func Install(t testing.TB, s driver.Store, g generation.Generation) driver.Head {
	t.Helper()
	ctx := Context(t)
	claiming, err := s.Claim(ctx)
	require.NoError(t, err)
	defer claiming.Abandon()
	claim := NextClaim(t, claiming.Head(), g)
	require.NoError(t, claiming.Install(ctx, claim, ClaimRecord(claim)))
	return claim.Head()
}

// Append commits payload after head, which must be the newest, and returns the
// new head.
func Append(t testing.TB, s driver.Store, head driver.Head, payload []byte) driver.Head {
	t.Helper()
	rec := NextRecord(head, payload)
	require.NoError(t, s.Append(Context(t), head, rec))
	return head.After(rec)
}

// NextClaim returns the claim by generation g that follows head, with a time
// that the encodings keep whole.
func NextClaim(t testing.TB, head driver.Head, g generation.Generation) driver.Claim {
	t.Helper()
	token, err := head.Claim.Token.Next(g)
	require.NoError(t, err)
	return driver.Claim{
		Token:       token,
		ID:          driver.NewID(),
		Revision:    head.Revision + 1,
		DataVersion: 1,
		ReadableBy:  1,
		Holder:      fence.Holder{Name: "drivertest", Since: time.Now().UTC().Truncate(time.Microsecond)},
		PriorClaim:  head.Claim.ID,
		PriorCommit: head.Commit,
	}
}

// ClaimRecord returns the record of a claim's own commit, without a payload.
func ClaimRecord(c driver.Claim) driver.Record {
	return driver.Record{Revision: c.Revision, ID: c.ID, Token: c.Token}
}

// NextRecord returns a new record that follows head, under head's token.
func NextRecord(head driver.Head, payload []byte) driver.Record {
	return driver.Record{Revision: head.Revision + 1, ID: driver.NewID(), Token: head.Claim.Token, Payload: payload}
}

// ReadHead returns the head of s.
func ReadHead(t testing.TB, s driver.Store) driver.Head {
	t.Helper()
	head, err := s.Head(Context(t))
	require.NoError(t, err)
	return head
}

// ReadLog returns the records of s above after.
func ReadLog(t testing.TB, s driver.Store, after uint64) []driver.Record {
	t.Helper()
	var records []driver.Record
	require.NoError(t, s.Log(Context(t), after, collect(&records)))
	return records
}

// ReadClaims returns the claims of s above after.
func ReadClaims(t testing.TB, s driver.Store, after uint64) []driver.Claim {
	t.Helper()
	var claims []driver.Claim
	require.NoError(t, s.Claims(Context(t), after, collect(&claims)))
	return claims
}

// ReadNotes returns the notes of s whose key begins with prefix.
func ReadNotes(t testing.TB, s driver.Store, prefix string) []driver.Note {
	t.Helper()
	notes, err := s.Notes(Context(t), prefix)
	require.NoError(t, err)
	return notes
}

// SameHead fails t where the frozen texts of two heads differ.
func SameHead(t testing.TB, want, got driver.Head, msg ...any) {
	t.Helper()
	require.Equal(t, headText(t, want), headText(t, got), msg...)
}

// SameLog fails t where two logs differ.
func SameLog(t testing.TB, want, got []driver.Record) {
	t.Helper()
	require.Len(t, got, len(want), "number of records")
	for i, w := range want {
		g := got[i]
		require.Equal(t, w.Revision, g.Revision, "revision of record %d", i)
		require.Equal(t, w.ID, g.ID, "id of the record at revision %d", w.Revision)
		require.Equal(t, w.Token, g.Token, "token of the record at revision %d", w.Revision)
		require.True(t, bytes.Equal(w.Payload, g.Payload), "payload of the record at revision %d", w.Revision)
	}
}

func headText(t testing.TB, h driver.Head) string {
	t.Helper()
	text, err := driver.MarshalHead(h)
	require.NoError(t, err)
	return string(text)
}

func claimTexts(t testing.TB, claims []driver.Claim) []string {
	t.Helper()
	var texts []string
	for _, c := range claims {
		text, err := driver.MarshalClaim(c)
		require.NoError(t, err)
		texts = append(texts, string(text))
	}
	return texts
}

// collect returns a function that adds what it is given to list.
func collect[V any](list *[]V) func(V) error {
	return func(v V) error {
		*list = append(*list, v)
		return nil
	}
}
