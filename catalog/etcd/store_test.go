package etcd_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestWhatIsAboveTheLimitsIsRefusedWithSizeAndLimit(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	head := claim(t, s)
	large := func(err error, size, limit string) {
		t.Helper()
		require.ErrorIs(t, err, driver.ErrTooLarge)
		require.ErrorContains(t, err, size)
		require.ErrorContains(t, err, limit)
		require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
		require.Equal(t, exitcodes.None, classed(t, err).Disposition())
	}
	limits := s.Limits()
	payload := strings.Repeat("x", limits.Payload)
	large(s.Append(within(t, time.Minute), head, record(head, payload+"x")), "67108865", "67108864")
	_, err := s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: make([]byte, limits.Note+1)})
	large(err, "262145", "262144")
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	rec.Payload = []byte(payload + "x")
	large(c.Install(within(t, time.Minute), next, rec), "67108865", "67108864")

	// Just at the limits all is well: the log's in TestAnyPayloadUpToTheLimitIsReadAsItWasSent.
	_, err = s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: make([]byte, limits.Note)})
	require.NoError(t, err)
}

func TestAnAppendToAnEmptyCatalogIsAConflict(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	err := s.Append(within(t, time.Minute), driver.Head{}, driver.Record{Revision: 1, ID: driver.NewID()})
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
}

func TestAHolderWhoseNameIsNotUTF8CommitsOnTheHeadItReads(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	next.Holder.Name = "h\xffst"
	require.NoError(t, c.Install(within(t, time.Minute), next, rec))
	commit(t, s, next.Head(), 1, "on the head as it was made")
	head, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)
	commit(t, s, head, 1, "on the head as it was read")
}

func TestARefusalNamesWantedAndActualRevision(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	first := claim(t, s)
	now := commit(t, s, first, 1, "x")
	err := s.Append(within(t, time.Minute), first, record(first, "late"))
	require.ErrorIs(t, err, driver.ErrConflict)
	require.ErrorContains(t, err, "want revision 1, the head is at 2 of g7.e1")
	require.ErrorContains(t, err, now.Commit.String())
}

func TestNotesOfManyPagesComeOrderedAndAnEmptyValueIsNoRemoval(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	ctx := within(t, time.Minute)
	for i := range 150 {
		_, err := s.Post(ctx, driver.Note{Key: "n/" + string(rune('a'+i/26)) + string(rune('a'+i%26)), Value: []byte{}})
		require.NoError(t, err)
	}
	_, err := s.Post(ctx, driver.Note{Key: "other", Value: []byte("v")})
	require.NoError(t, err)
	notes, err := s.Notes(ctx, "n/")
	require.NoError(t, err)
	require.Len(t, notes, 150)
	for i, note := range notes {
		require.NotNil(t, note.Value)
		require.Greater(t, note.Version, int64(0))
		require.True(t, i == 0 || notes[i-1].Key < note.Key)
	}
	notes, err = s.Notes(ctx, "")
	require.NoError(t, err)
	require.Len(t, notes, 151)
	_, err = s.Post(ctx, driver.Note{Key: "other", Value: []byte("w")})
	require.ErrorIs(t, err, driver.ErrConflict)
}

func TestAWatchWakesOnceAtItsBeginningAndAfterClaimsCommitsAndPosts(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, other := open(t, url, etcd.Config{}), open(t, url, etcd.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	wakes, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- s.Watch(ctx, func() { wakes <- struct{}{} }) }()
	woken := func(why string) {
		t.Helper()
		select {
		case <-wakes:
		case <-time.After(time.Minute):
			t.Fatal("no wake-up after", why)
		}
	}
	woken("the beginning")
	require.Empty(t, wakes)
	head := claim(t, other)
	woken("a claim")
	commit(t, other, head, 1, "x")
	woken("a commit")
	_, err := other.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	woken("a post")
	cancel()
	err = <-done
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, exitcodes.None, classed(t, err).Disposition())
}

func TestAWatchOfClaimsWakesAfterARecordOfLosses(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, other := open(t, url, etcd.Config{}), open(t, url, etcd.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	wakes, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- s.WatchClaims(ctx, func() { wakes <- struct{}{} }) }()
	<-wakes
	_, err := other.PutLosses(within(t, time.Minute), lossesOf(t, other, "a loss"), nil)
	require.NoError(t, err)
	select {
	case <-wakes:
	case <-time.After(time.Minute):
		require.Fail(t, "no wake-up")
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestAWatchEndsWithAReasonWhenTheStoreIsClosed(t *testing.T) {
	t.Parallel()
	s, err := etcd.Open(t.Context(), testetcd.URL(t), etcd.Config{})
	require.NoError(t, err)
	began, done := make(chan struct{}, 100), make(chan error, 1)
	ctx := t.Context()
	go func() { done <- s.Watch(ctx, func() { began <- struct{}{} }) }()
	<-began
	require.NoError(t, s.Close())
	require.Error(t, <-done)
}

func TestAClientThatWasHandedInStaysOpen(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	client := testetcd.Client(t, url)
	s, err := etcd.Open(t.Context(), "etcd:///"+testetcd.Prefix(t, url), etcd.Config{Client: client})
	require.NoError(t, err)
	claim(t, s)
	require.NoError(t, s.Close())
	_, err = client.Get(within(t, time.Minute), "any")
	require.NoError(t, err)
}

func TestACallWithoutADeadlineGetsOne(t *testing.T) {
	t.Parallel()
	s := open(t, "etcd://127.0.0.1:1/none", etcd.Config{})
	began := time.Now()
	_, err := s.Head(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), time.Minute)
}

func TestEveryMistakeInTheConfigurationIsNamedAtOnceAndNoSecret(t *testing.T) {
	t.Parallel()
	none := func(string) string { return "" }
	_, err := etcd.Open(t.Context(), "etcd://user:top%zzsecret@host,other:99999/?secret=1&lease=-3s", etcd.Config{
		ClaimTTL: 1500 * time.Millisecond, TLS: new(tls.Config), Getenv: none,
	})
	for _, text := range []string{`"host" is not`, `"other:99999" is not`, "password is not well escaped", "parameter that is not known", "lease is no time above 0", "ClaimTTL is 1.5s", "Config.TLS"} {
		require.ErrorContains(t, err, text)
	}
	require.NotContains(t, err.Error(), "secret")
	require.Equal(t, exitcodes.Config, classed(t, err).ExitCode())
	for url, text := range map[string]string{
		"postgres://h/p":              "etcd://host:2379/prefix",
		"etcd://h:1":                  "no prefix",
		"etcd:///p":                   "no host",
		"etcd://user@h:1/p":           "together",
		"etcd://:password@h:1/p":      "together",
		"etcd://h:1/p#f":              "no fragment",
		"etcd://h:1/p?lease":          "lease is no time above 0",
		"etcd://h:1/p?keepalive=1s":   "gRPC takes no less",
		"etcd://h:1/p?claim-ttl=1s":   "ClaimTTL is 1s",
		"etcd://h:1/p?hedge-after=no": "hedge-after is no time above 0",
	} {
		_, err := etcd.Open(t.Context(), url, etcd.Config{Getenv: none})
		require.ErrorContains(t, err, text, url)
	}
	s := open(t, "etcd://us%40er:sec%2Fret@[::1]:2379,b:2380/a/b/?lease=3s&hedge-after=off&keepalive=11s&keepalive-timeout=1s&dial-timeout=1s&claim-ttl=4s", etcd.Config{})
	require.Equal(t, "etcd://[::1]:2379,b:2380/a/b", s.String())
}
