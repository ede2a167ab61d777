package kv_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
	"github.com/fencepost/fencepost/fence"
)

// brief is a HoldTimeout of servers that nobody tells who leads.
const brief = 20 * time.Millisecond

func TestAServerThatDoesNotLeadRefusesDataAndAnswersTheRest(t *testing.T) {
	server, address := standby(t, kv.Config{})
	c := dial(t, address)
	for _, line := range []string{"GET a", "SET a 1", "DEL a", "INCR a", "MSET a 1", "SCAN 0", "DBSIZE", "EXISTS a", "MGET a"} {
		require.Equal(t, "-READONLY fencepost: not leading (it was not asked to lead yet)", c.words(line), line)
	}
	require.Equal(t, "+PONG", c.words("PING"))
	require.Contains(t, c.words("INFO"), `role:slave\r\n\r\n# Fencepost\r\nfencepost_phase:not-leading`)
	require.Equal(t, []string{"+OK", "+QUEUED", "-READONLY fencepost: not leading (it was not asked to lead yet)"},
		c.pipeline("MULTI", "SET a 1", "EXEC"))

	server.Lead(open(t, newFile(t), catalog.Config{}))
	require.Equal(t, "+OK", c.words("SET a 1"))
	server.Follow("(phase ready-to-promote): generation 2 leads", "10.0.0.1:6379")
	require.Equal(t, []string{"-READONLY fencepost: not leading (phase ready-to-promote): generation 2 leads, at 10.0.0.1:6379", "+PONG"},
		c.pipeline("GET a", "PING"))
}

func TestStandingIsAskedForEveryRefusal(t *testing.T) {
	phase := "(phase catching-up)"
	_, address := standby(t, kv.Config{
		Standing: func() string { return phase },
		Info:     func() []kv.Field { return []kv.Field{{Name: "fencepost_phase", Value: "two\nlines"}} },
	})
	c := dial(t, address)
	require.Equal(t, "-READONLY fencepost: not leading (phase catching-up)", c.words("GET a"))
	require.Equal(t, `"# Fencepost\r\nfencepost_phase:two lines\r\n"`, c.words("INFO fencepost"))
}

func TestAServerThatIsSupersededSaysByWhom(t *testing.T) {
	store := newFile(t)
	c := leading(t, store, kv.Config{HoldTimeout: brief})
	require.Equal(t, "+OK", c.words("SET a 1"))
	open(t, store, catalog.Config{Generation: 2, Holder: fence.Holder{Name: "green"}})
	const want = `^-FENCED superseded by g2\.e2 of green, since [-0-9T:Z]+: this server held g1\.e1, and nothing was `
	replies := c.pipeline("GET a", "SET a 2", "INCR n")
	for i, effect := range []string{"read$", "written$", "written$"} {
		require.Regexp(t, want+effect, replies[i])
	}
	require.Regexp(t, want+"read$", c.words("GET a"))
	require.Equal(t, "+PONG", c.words("PING"))
}

func TestAServerThatIsFencedByEpochSaysSo(t *testing.T) {
	store := newFile(t)
	c := leading(t, store, kv.Config{HoldTimeout: brief})
	open(t, store, catalog.Config{Generation: 1})
	require.Regexp(t, `^-FENCED fenced by epoch: g1\.e2 of .*: this server held g1\.e1, and nothing was written$`, c.words("SET a 2"))
}

func TestAConfirmedReadIsNeverServedAfterAFence(t *testing.T) {
	store := newFile(t)
	server, address := standby(t, kv.Config{ConfirmReads: true, HoldTimeout: brief})
	server.Lead(open(t, watch(store), catalog.Config{PollInterval: time.Hour}))
	c := dial(t, address)
	require.Equal(t, "+OK", c.words("SET a 1"))
	require.Equal(t, `"1"`, c.words("GET a"))
	open(t, store, catalog.Config{Generation: 2})
	require.Regexp(t, `^-FENCED superseded by g2\.e2`, c.words("GET a"))
}

func TestAWriteThatChangesNothingIsConfirmedToo(t *testing.T) {
	store := newFile(t)
	server, address := standby(t, kv.Config{ConfirmReads: true, HoldTimeout: brief})
	server.Lead(open(t, watch(store), catalog.Config{PollInterval: time.Hour}))
	c := dial(t, address)
	require.Equal(t, ":0", c.words("DEL a"))
	open(t, store, catalog.Config{Generation: 2})
	require.Regexp(t, `^-FENCED superseded by g2\.e2`, c.words("DEL a"))
}

func TestAWriteWhoseOutcomeIsUnknownIsAnsweredSo(t *testing.T) {
	store := memory.New()
	server, address := standby(t, kv.Config{})
	server.Lead(open(t, store, catalog.Config{StoreTimeout: 100 * time.Millisecond, RetryBudget: 200 * time.Millisecond}))
	c := dial(t, address)
	require.Equal(t, "+OK", c.words("SET a 1"))
	store.Inject(func(call memory.Call) memory.Fault {
		if call.Method == "Append" {
			return memory.LoseRequest
		}
		return memory.Pass
	})
	require.Regexp(t, "^-UNKNOWN outcome: the write may have landed or may land later, and this server does not try it again: ", c.words("SET a 2"))
	store.Inject(nil)
	require.Equal(t, "+PONG", c.words("PING"))
}

func TestAWriteThatTheStoreRefusesForGoodIsAnsweredWithTheReason(t *testing.T) {
	store := memory.New()
	server, address := standby(t, kv.Config{})
	server.Lead(open(t, store, catalog.Config{RetryBudget: 100 * time.Millisecond}))
	c := dial(t, address)
	store.Fill(true)
	require.Regexp(t, "^-OOM nothing was written: .*full", c.words("SET a 1"))
}

func TestFollowWaitsForWritesUnderWay(t *testing.T) {
	store := watch(newFile(t))
	server, address := standby(t, kv.Config{DrainTimeout: patience})
	server.Lead(open(t, store, catalog.Config{}))
	c := dial(t, address)
	release := store.holdUp()
	c.words("PING")
	c.sendLines("SET a 1")
	<-store.held
	followed := make(chan struct{})
	go func() { server.Follow("(handing over)", ""); close(followed) }()
	other := c.another()
	require.Eventually(t, func() bool { return other.words("GET a") == "-READONLY fencepost: not leading (handing over)" }, patience, time.Millisecond)
	select {
	case <-followed:
		t.Fatal("Follow returned while a write was under way")
	default:
	}
	release()
	require.Equal(t, "+OK", c.reply())
	<-followed
}

func TestAWriteThatOutlastsTheDrainIsUnknown(t *testing.T) {
	store := watch(newFile(t))
	server, address := standby(t, kv.Config{DrainTimeout: 20 * time.Millisecond})
	server.Lead(open(t, store, catalog.Config{}))
	c := dial(t, address)
	release := store.holdUp()
	c.sendLines("SET a 1")
	<-store.held
	server.Follow("(handing over)", "")
	require.Regexp(t, "^-UNKNOWN outcome: .*the server stops leading", c.reply())
	release()
}

// A failure of the store of whatever kind, in a batch of its own or beside
// writes, outside and within a transaction.
func TestAReadThatFailsSaysNothingOfWrites(t *testing.T) {
	for name, fault := range map[string]memory.Fault{"refused": memory.Refuse, "lost": memory.LoseRequest} {
		store := memory.New()
		server, address := standby(t, kv.Config{ConfirmReads: true})
		server.Lead(open(t, store, catalog.Config{StoreTimeout: 100 * time.Millisecond, RetryBudget: 200 * time.Millisecond}))
		c := dial(t, address)
		require.Equal(t, "+OK", c.words("SET a 1"))
		store.Inject(func(memory.Call) memory.Fault { return fault })
		for _, reply := range []string{c.words("GET a"), c.words("EXISTS a"), c.words("SCAN 0"), c.pipeline("GET a", "SET a 2")[0]} {
			require.Regexp(t, "^-ERR nothing was read: ", reply, name)
			require.NotContains(t, reply, "written", name)
		}
		replies := c.pipeline("MULTI", "GET a", "EXEC")
		require.Regexp(t, "^-ERR nothing was read: ", replies[2], name)
		replies = c.pipeline("MULTI", "GET a", "SET a 2", "EXEC")
		require.Regexp(t, "^-(UNKNOWN outcome|ERR nothing was written): ", replies[3], name)
	}
}
