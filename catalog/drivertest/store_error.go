package drivertest

import (
	"context"
	"net/url"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func errorRules() []rule {
	return []rule{
		{"limits", "Limits are above zero and String names the store", limitsAndName},
		{"cancelled-calls", "every call under a context that has ended fails, promptly, and writes nothing", cancelledCalls},
		{"cancelled-writes", "a write that was never sent has outcome not applied", cancelledWrites},
		{"errors-are-classified", "every error is or wraps a *driver.Error that names the store and the method", errorsAreClassified},
		{"no-secrets", "neither the store's name nor its errors hold a password", noSecrets},
	}
}

func limitsAndName(b *bench) {
	require.NotEmpty(b, b.s.String())
	require.Positive(b, b.s.Limits().Payload)
	require.Positive(b, b.s.Limits().Note)
}

// calls returns one call of every method. The writes would land on head.
func (b *bench) calls(s driver.Store, head driver.Head) map[string]func(context.Context) error {
	rec := NextRecord(head, []byte("x"))
	return map[string]func(context.Context) error{
		"head":   func(ctx context.Context) error { _, err := s.Head(ctx); return err },
		"append": func(ctx context.Context) error { return s.Append(ctx, head, rec) },
		"claim": func(ctx context.Context) error {
			c, err := s.Claim(ctx)
			if err == nil {
				c.Abandon()
			}
			return err
		},
		"log":    func(ctx context.Context) error { return s.Log(ctx, 0, func(driver.Record) error { return nil }) },
		"claims": func(ctx context.Context) error { return s.Claims(ctx, 0, func(driver.Claim) error { return nil }) },
		"notes":  func(ctx context.Context) error { _, err := s.Notes(ctx, ""); return err },
		"post": func(ctx context.Context) error {
			_, err := s.Post(ctx, driver.Note{Key: "k", Value: []byte("v")})
			return err
		},
		"snapshot": func(ctx context.Context) error {
			return s.Snapshot(ctx, func(driver.Snapshot, []byte) error { return nil })
		},
		"stage": func(ctx context.Context) error { return s.Stage(ctx, head.Claim, driver.NewID(), 0, []byte("x")) },
		"publish": func(ctx context.Context) error {
			return s.Publish(ctx, head.Claim, driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token})
		},
		"trim": func(ctx context.Context) error { _, err := s.Trim(ctx, head.Claim); return err },
	}
}

func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

func cancelledCalls(b *bench) {
	head := Install(b, b.s, 1)
	before := b.picture()
	for op, call := range b.calls(b.s, head) {
		err := b.await(async(func() error { return call(ended(b.ctx)) }), op)
		require.Error(b, err, op)
		b.classified(err, op)
	}
	claiming := b.claim(b.s)
	claim := NextClaim(b, claiming.Head(), 2)
	err := b.await(async(func() error { return claiming.Install(ended(b.ctx), claim, ClaimRecord(claim)) }), "install")
	require.Error(b, err, "install")
	b.classified(err, "install")
	b.unchanged(before, "calls under a context that has ended")
	Append(b, b.s, head, nil)
}

func cancelledWrites(b *bench) {
	head := Install(b, b.s, 1)
	for _, op := range []string{"append", "post", "claim", "stage", "publish", "trim"} {
		err := b.calls(b.s, head)[op](ended(b.ctx))
		require.Error(b, err, op)
		require.Equal(b, driver.NotApplied, driver.OutcomeOf(err), "outcome of "+op)
	}
	Append(b, b.s, head, nil)
}

// errors returns an error of every kind that can be had from outside, by the
// method that returned it.
func (b *bench) errors() map[string][]error {
	b.Helper()
	head := Install(b, b.s, 1)
	got := make(map[string][]error)
	add := func(op string, err error) {
		require.Error(b, err, op)
		got[op] = append(got[op], err)
	}
	for op, call := range b.calls(b.s, head) {
		add(op, call(ended(b.ctx)))
	}
	add("append", b.s.Append(b.ctx, driver.Head{}, NextRecord(head, nil)))
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: []byte("v"), Version: 9})
	add("post", err)
	if limit := b.s.Limits().Note; limit <= affordable {
		_, err = b.s.Post(b.ctx, driver.Note{Key: "k", Value: pattern(limit + 1)})
		add("post", err)
	}
	claiming := b.claim(b.s)
	_, err = b.s.Claim(b.short())
	add("claim", err)
	claim := NextClaim(b, claiming.Head(), 2)
	add("install", claiming.Install(b.ctx, claim, ClaimRecord(claim), driver.Note{Key: "absent", Version: 9}))
	return got
}

func errorsAreClassified(b *bench) {
	for op, errs := range b.errors() {
		for _, err := range errs {
			var e *driver.Error
			require.ErrorAs(b, err, &e, op)
			require.Equal(b, b.s.String(), e.Store, "the store that %q names", err)
			require.Equal(b, op, e.Op, "the method that %q names", err)
			require.Contains(b, err.Error(), b.s.String())
			require.NotNil(b, e.Err)
		}
	}
}

func noSecrets(b *bench) {
	texts := []string{b.s.String()}
	for _, errs := range b.errors() {
		for _, err := range errs {
			texts = append(texts, err.Error())
		}
	}
	for _, text := range texts {
		require.NotContains(b, strings.ToLower(text), "password=")
		for _, word := range strings.Fields(text) {
			u, err := url.Parse(strings.TrimRight(word, ":,;"))
			if err == nil && u.User != nil {
				_, secret := u.User.Password()
				require.False(b, secret, "a password in %q", text)
			}
		}
	}
}
