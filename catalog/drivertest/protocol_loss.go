package drivertest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func lossCases() []protocolCase {
	return []protocolCase{
		{"a loss that was found stays found: no claim passes until the token was raised above it", lossStaysFound},
		{"a loss that was found in a commit stays found too, and is one loss whoever finds it again", lossFoundTwice},
		{"a loss that was dismissed forbids no claim, and only the one that was seen is dismissed", lossDismissed},
		{"a loss is accepted by a setting, and stays in the history", lossAccepted},
		{"a loss over which a holder has claimed stops nobody, and that holder says it aloud", lossOvertaken},
		{"a server that is behind, and does not say so, is no loss for the others", lossOfAServerBehind},
		{"a server that is behind under the same claim is no loss either, whatever was written since", lossOfAServerBehindItsClaim},
		{"the answer to the record of a loss is lost: it is recorded once", lossAnswerLost},
		{"a loss is recorded however many others are recorded at the same time", lossBesideOthers},
		{"a loss that can't be recorded ends the process within its bound, and says so", lossNotRecorded},
		{"a loss that was recorded while a claim ran its migrations refuses that claim", lossBesideAClaim},
	}
}

// loser makes a holder whose last n commits the store acknowledged and does not
// have. It has not found out by itself: hide keeps it from that, and is set.
func (s *scene) loser(g generation.Generation, n int) (c *catalog.Catalog, h *hooked, hide *atomic.Bool) {
	s.Helper()
	h, hide = s.lags()
	cfg := slowly(config(g))
	cfg.StoreTimeout = Patience
	c = s.claimsOver(h, cfg)
	s.put(c, "kept", "v")
	hide.Store(true)
	for range n {
		s.losesNext(c, h)
	}
	return c, h, hide
}

// finds has a holder look at the head that it could not see.
func (s *scene) finds(c *catalog.Catalog, hide *atomic.Bool) error {
	s.Helper()
	hide.Store(false)
	err := c.Confirm(Context(s))
	s.isLostCommit(c, err)
	return err
}

func (s *scene) losesNext(c *catalog.Catalog, h *hooked) {
	s.Helper()
	h.onAppend = func(context.Context, driver.Head, driver.Record) error { return nil }
	s.put(c, "gone", "v")
	h.onAppend = nil
}

func (s *scene) recorded() []catalog.Loss {
	s.Helper()
	losses, err := catalog.Losses(Context(s), s.store())
	require.NoError(s, err)
	return losses
}

// forbidden asserts on the error of a claim while a loss stands.
func (s *scene) forbidden(err error, l catalog.Loss) {
	s.Helper()
	require.ErrorIs(s, err, catalog.ErrLossStands)
	require.NotErrorIs(s, err, catalog.ErrUnknownOutcome)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
	for _, part := range []string{
		l.Revisions(), l.By, l.Place, l.At.Format(time.RFC3339), l.ID.String(),
		"`fencepost restored --above " + l.Token.String() + "`", "`fencepost restored --dismiss=" + l.ID.String() + "`",
	} {
		require.ErrorContains(s, err, part)
	}
}

func (s *scene) cantClaim(g generation.Generation, l catalog.Loss) {
	s.Helper()
	before := ReadHead(s, s.store())
	_, err := catalog.Open(Context(s), s.store(), config(g))
	s.forbidden(err, l)
	SameHead(s, before, ReadHead(s, s.store()))
}

func lossStaysFound(s *scene) {
	c, _, hide := s.loser(2, 1)
	err := s.finds(c, hide)
	losses := s.recorded()
	require.Len(s, losses, 1)
	l := losses[0]
	require.ErrorContains(s, err, "recorded as loss "+l.ID.String())
	require.True(s, l.Stands())
	require.EqualValues(s, 3, l.From)
	require.EqualValues(s, 3, l.To)
	require.Equal(s, "g2.e1", l.Token.String())
	require.Equal(s, "g2.e1", l.Left.String())
	require.Contains(s, l.By, "process of 2")
	require.NotEmpty(s, l.Place)
	require.WithinDuration(s, time.Now(), l.At, time.Minute)
	require.Error(s, c.Close())

	for g := range generation.Generation(3) {
		s.cantClaim(g+2, l)
	}
	_, err = s.raises(s.store(), "")
	s.forbidden(err, l)
	raised, err := s.raises(s.store(), l.Token.String())
	require.NoError(s, err)
	require.Equal(s, "g2.e2", raised.Token.String())
	ended := s.recorded()
	require.Len(s, ended, 1)
	require.Equal(s, catalog.LossRestored, ended[0].Ended.How)
	require.Equal(s, raised.Token, ended[0].Ended.Token)
	require.Equal(s, "operator", ended[0].Ended.By)
	l.Ended = ended[0].Ended
	require.Equal(s, l, ended[0], "nothing else has changed")
	next := s.claims(2)
	require.Equal(s, map[string]string{"kept": "v"}, s.contents(next))
	_, err = s.raises(s.store(), l.Token.String())
	require.ErrorIs(s, err, catalog.ErrNotBelow, "a loss that has ended is no reason any more")
}

func lossFoundTwice(s *scene) {
	c, _, hide := s.loser(2, 2)
	hide.Store(false)
	calls := []<-chan error{
		async(func() error { return put(Context(s), c, "more", "v") }),
		async(func() error { return c.Confirm(Context(s)) }),
		async(func() error { return c.Confirm(context.WithoutCancel(Context(s))) }),
	}
	for _, call := range calls {
		s.isLostCommit(c, <-call)
	}
	var standing []catalog.Loss
	for _, l := range s.recorded() {
		if l.Stands() {
			standing = append(standing, l)
		}
	}
	require.Len(s, standing, 1)
	require.EqualValues(s, standing[0].From+1, standing[0].To)
	s.cantClaim(2, standing[0])
}

func lossDismissed(s *scene) {
	c, _, hide := s.loser(1, 1)
	_ = s.finds(c, hide)
	l := s.recorded()[0]
	for what, other := range map[string]catalog.Loss{
		"another loss":        {ID: driver.NewID(), From: l.From, To: l.To, Token: l.Token},
		"what has been added": {ID: l.ID, From: l.From, To: l.To - 1, Token: l.Token},
	} {
		err := catalog.DismissLoss(Context(s), s.store(), operator(), other, "operator")
		require.ErrorIs(s, err, catalog.ErrRefused, what)
	}
	s.cantClaim(1, l)
	require.NoError(s, catalog.DismissLoss(Context(s), s.store(), operator(), l, "operator"))
	require.ErrorIs(s, catalog.DismissLoss(Context(s), s.store(), operator(), l, "operator"), catalog.ErrRefused)
	require.Equal(s, "g1.e2", s.claims(1).Token().String())
	losses := s.recorded()
	require.Len(s, losses, 1)
	require.Equal(s, catalog.LossDismissed, losses[0].Ended.How)
	require.Equal(s, "operator", losses[0].Ended.By)
	require.True(s, losses[0].Ended.Token.IsZero())
}

func lossAccepted(s *scene) {
	c, _, hide := s.loser(1, 1)
	_ = s.finds(c, hide)
	accepting := config(1)
	accepting.AcceptLoss = true
	next := s.claimsOver(s.store(), accepting)
	losses := s.recorded()
	require.Len(s, losses, 1)
	require.Equal(s, catalog.LossAccepted, losses[0].Ended.How)
	require.Equal(s, next.Token(), losses[0].Ended.Token)
	require.Contains(s, losses[0].Ended.By, "process of 1")
	require.NoError(s, next.Close())
	require.Equal(s, "g1.e3", s.claims(1).Token().String())
}

func lossOvertaken(s *scene) {
	c, _, hide := s.loser(1, 1)
	cfg, said := config(2), new(errorLog)
	cfg.Logger = slog.New(said)
	next := s.claimsOver(s.store(), cfg)
	hide.Store(false)
	err := c.Confirm(Context(s))
	s.supersededBy("g2.e2", err)
	s.supersededBy("g2.e2", c.Close())
	losses := s.recorded()
	require.Len(s, losses, 1)
	require.True(s, losses[0].Overtaken)
	require.True(s, losses[0].Open())
	require.False(s, losses[0].Stands())
	require.EqualValues(s, 3, losses[0].From)
	require.Eventually(s, func() bool { return said.has(losses[0].ID.String()) }, Patience, Patience/1000, "the holder says it")
	s.put(next, "k", "v")
	require.NoError(s, next.Err())
	again := s.claims(2)
	require.True(s, s.recorded()[0].Open(), "a claim does not end the alarm")
	require.NoError(s, again.Close())
	require.NoError(s, catalog.DismissLoss(Context(s), s.store(), operator(), losses[0], "operator"))
}

// errorLog keeps what is logged as an error.
type errorLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *errorLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *errorLog) WithGroup(string) slog.Handler                    { return l }

func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool { l.text.WriteString(" " + a.String()); return true })
	return nil
}

func (l *errorLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func lossOfAServerBehind(s *scene) {
	old := s.claims(1).Head()
	h, forge := s.forges()
	c := s.claimsOver(h, slowly(config(2)))
	s.put(c, "k", "v")
	behind := func(driver.Head) driver.Head { return old }
	var asked atomic.Int32
	once := func(head driver.Head) driver.Head { // and then the right server is found
		if asked.Add(1) == 1 {
			return behind(head)
		}
		return head
	}
	forge.Store(&once)
	err := c.Confirm(Context(s))
	s.isLostCommit(c, err)
	require.ErrorContains(s, err, "the store shows it again")
	require.Empty(s, s.recorded())
	require.Equal(s, "g2.e3", s.claims(2).Token().String())
}

func lossOfAServerBehindItsClaim(s *scene) {
	for _, since := range []string{"nothing", "a claim"} {
		s = s.anew()
		h, forge := s.forges()
		c := s.claimsOver(deaf(h), slowly(config(1)))
		s.put(c, "k", "v")
		old := c.Head()
		s.put(c, "k", "w")
		s.put(c, "k", "x")
		if newest := c.Head(); since == "a claim" {
			hide := func(driver.Head) driver.Head { return newest }
			forge.Store(&hide)
			require.NoError(s, s.claims(1).Close())
		}
		var asked atomic.Int32
		once := func(head driver.Head) driver.Head {
			if asked.Add(1) == 1 {
				return old
			}
			return head
		}
		forge.Store(&once)
		_ = c.Confirm(Context(s)) // or a look of its own sees the old head
		s.awaitDone(c.Done())
		err := c.Confirm(Context(s))
		s.isLostCommit(c, err)
		require.ErrorContains(s, err, "the store shows it again", since)
		require.Empty(s, s.recorded(), since)
		next := s.claims(1)
		require.Equal(s, map[string]string{"k": "x"}, s.contents(next))
	}
}

func lossAnswerLost(s *scene) {
	c, h, hide := s.loser(1, 1)
	tries := 0
	h.onPutLosses = func(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
		version, err := h.Store.PutLosses(ctx, l, at)
		if tries++; tries == 1 {
			s.check(err)
			return 0, lost(h.Store, "put losses")
		}
		return version, err
	}
	err := s.finds(c, hide)
	losses := s.recorded()
	require.Len(s, losses, 1)
	require.ErrorContains(s, err, losses[0].ID.String())
	require.GreaterOrEqual(s, tries, 2)
	s.cantClaim(1, losses[0])
}

func lossBesideOthers(s *scene) {
	c, h, hide := s.loser(1, 1)
	others := 0
	h.onPutLosses = func(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
		if others < 12 { // more than one process can do
			others++
			_, err := h.Store.PutLosses(ctx, driver.Losses{Text: []byte("{}"), Version: l.Version, Place: l.Place}, nil)
			s.check(err)
		}
		return h.Store.PutLosses(ctx, l, at)
	}
	_ = s.finds(c, hide)
	losses := s.recorded()
	require.Len(s, losses, 1)
	s.cantClaim(1, losses[0])
}

func lossNotRecorded(s *scene) {
	readOnly := &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config}, Op: "put losses", Err: errors.New("it takes no writes")}
	for says, put := range map[string]func(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error){
		"this could not be written into the store": func(context.Context, driver.Losses, *driver.Head) (int64, error) { return 0, readOnly },
		"whether this was written into the store is not known": func(ctx context.Context, _ driver.Losses, _ *driver.Head) (int64, error) {
			<-ctx.Done()
			return 0, lost(s.store(), "put losses")
		},
	} {
		s = s.anew()
		h, _ := s.lags()
		h.onPutLosses = put
		cfg := slowly(config(1))
		cfg.StoreTimeout = time.Second
		c := s.claimsOver(h, cfg)
		s.losesNext(c, h)
		done := async(func() error { return c.Confirm(Context(s)) })
		select {
		case err := <-done:
			s.isLostCommit(c, err)
			require.ErrorContains(s, err, says)
			require.ErrorContains(s, err, "`fencepost restored --above g1.e1`")
		case <-time.After(Patience):
			require.Fail(s, "it goes on")
		}
		require.Empty(s, s.recorded())
	}
}

// lossBesideAClaim also takes a store that keeps the record waiting for the claim's
// end: then the claim lands, and its holder raises the alarm.
func lossBesideAClaim(s *scene) {
	c, _, hide := s.loser(1, 1)
	st := s.store()
	h := &hooked{Store: st}
	var found <-chan error
	h.onInstall = func(ctx context.Context, cl driver.Claiming, claim driver.Claim, rec driver.Record, when []driver.Note) error {
		if found == nil {
			hide.Store(false)
			found = async(func() error { return c.Confirm(context.WithoutCancel(ctx)) })
			select {
			case <-found:
			case <-time.After(5 * quiet):
			}
		}
		return cl.Install(ctx, claim, rec, when...)
	}
	next, err := catalog.Open(Context(s), h, config(2))
	if err == nil { // the record waited
		s.awaitDone(c.Done())
		require.NoError(s, next.Close())
		_ = c.Close() // joins the writing of the record
		require.Len(s, s.recorded(), 1)
		require.True(s, s.recorded()[0].Overtaken)
		return
	}
	s.isLostCommit(c, c.Err())
	s.forbidden(err, s.recorded()[0])
	require.NotErrorIs(s, err, fence.ErrFenced)
}
