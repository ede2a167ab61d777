package postgres_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// readOnly sets whether new transactions on a server may write, and returns
// once its sessions know.
func readOnly(t *testing.T, server, value string) {
	t.Helper()
	conn := testpg.Connect(t, server)
	testpg.Exec(t, server, `alter system set default_transaction_read_only = `+value, `select pg_reload_conf()`)
	require.Eventually(t, func() bool {
		var now string
		err := conn.QueryRow(t.Context(), `select current_setting('default_transaction_read_only')`).Scan(&now)
		return err == nil && now == value
	}, soon, often)
}

func TestAServerThatTurnsReadOnlyIsLeftForTheOneThatTakesWrites(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	h := holder(t, cl.dsn, 1)
	require.NoError(t, set(h, "before"))
	cl.primary.CaughtUp(cl.standby)
	readOnly(t, cl.primary.URL, "on")
	cl.primary.CaughtUp(cl.standby)
	cl.standby.Detach()
	cl.standby.Promote()
	require.NoError(t, set(h, "after"), "the old primary still answers, and takes no writes")
	require.NoError(t, h.Confirm(t.Context()))
	head, err := open(t, cl.standby.URL).Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, h.Head(), head)
}

func TestAPrimaryThatIsDemotedBehindOneAddressIsLeftForItsSuccessor(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	p, through := newProxy(t, cl.primary.URL)
	h := holder(t, through, 1)
	require.NoError(t, set(h, "before"))
	cl.primary.CaughtUp(cl.standby)
	readOnly(t, cl.primary.URL, "on")
	done := make(chan error, 1)
	go func() { done <- set(h, "after") }()
	cl.primary.CaughtUp(cl.standby)
	cl.standby.Detach()
	cl.standby.Promote()
	p.server.Store(cl.standby.Address()) // the connections that there are still lead to the old one
	require.NoError(t, <-done)
	head, err := open(t, cl.standby.URL).Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, h.Head(), head)
}

func TestAServerThatWasReadOnlyForAWhileTakesTheSameCommit(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t)
	s := open(t, server.URL)
	head := claim(t, s)
	readOnly(t, server.URL, "on")
	rec := next(head)
	e := fails(t, s.Append(within(t, soon), head, rec), exitcodes.Retry, driver.NotApplied)
	require.Contains(t, e.Remedy, "default_transaction_read_only")
	_, claimErr := s.Claim(within(t, soon))
	_, postErr := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	fails(t, claimErr, exitcodes.Retry, driver.NotApplied)
	fails(t, postErr, exitcodes.Retry, driver.NotApplied)
	require.Eventually(t, func() bool { // the claim's wake-up may have come late: the next refusal leaves its connection
		_, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
		return err != nil && len(testpg.Backends(t, server.URL, "fencepost")) == 0
	}, soon, often, "each was left")
	readOnly(t, server.URL, "off")
	require.NoError(t, s.Append(within(t, soon), head, rec))
}

func TestSeveralHostsLeadToTheOneThatTakesWrites(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	backwards := testpg.With(t, cl.dsn, func(u *url.URL) { u.Host = cl.standby.Address() + "," + cl.primary.Address() })
	claim(t, open(t, backwards))
	require.Equal(t, "1 1", stampOf(t, cl.primary.URL))
}
