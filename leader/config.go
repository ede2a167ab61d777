package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/clock"
	"github.com/fencepost/fencepost/internal/loopback"
	"github.com/fencepost/fencepost/internal/spool"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// Config says how a process leads. The zero value of a field means its
// default.
type Config struct {
	// Catalog is how the catalog is opened. Its Generation is required. Its
	// StoreTimeout is two thirds of Lease by default, at least 1 s and at most 5 s,
	// so that a call that hangs leaves time for another one. Its RetryBudget is an hour by default, as it decides for how long an outage
	// of the store can be outlived while a write's answer is missing. Its
	// Holder.Address is by default where this package listens; a service whose
	// successor is to forward requests to it gives the address of its clients.
	Catalog catalog.Config

	// Admin is the address on which the admin API listens, such as
	// 127.0.0.1:7001; the host must be a loopback address. Empty: none. Other
	// processes of this host reach this one there, for handover and, if the
	// kernel doesn't tell of it, for noticing its death at once.
	Admin string

	// Peer is the address on which processes of other hosts reach this one, for
	// the same. They are told it, so it names one host: 0.0.0.0, [::], a multicast
	// address and a link-local one without its interface are refused, as is a name
	// that can't be resolved once Run listens. It answers two questions and obeys
	// nobody: whether this process lives, and whether it has read what the store says
	// of its replacement. Empty: none, and then a process of another host that
	// replaces this one does not ask it first, and waits for Lease where it
	// died.
	Peer string

	// AutoPromote makes a process promote its own generation once it is ready,
	// without being asked.
	AutoPromote bool

	// Lease is for how long the holder believes a confirmation of its token,
	// from when that was asked for, and for how long standbys hear nothing of
	// it before they claim, and a twentieth more. Default 7.5 s: longer than
	// three elections of an etcd with default settings, of at most 2 s each,
	// and one call. At least 300 ms.
	Lease time.Duration

	// Poll is how often a waiting process looks at the board. Default 100 ms.
	Poll time.Duration

	// HandoverTimeout is how long the holder's work may take to end once it was asked
	// to hand over, and how long the holder then waits for the claim. A holder whose
	// work does not end is fenced, and one whose successor does not claim resumes its
	// work. While the successor's migrations run, the holder waits on, for an hour at
	// most. Default 5 s.
	HandoverTimeout time.Duration

	// AcknowledgeTimeout is how long a holder may take to acknowledge a handover
	// before it is fenced. Only time counts during which the process that asks can
	// read the store itself. Default 500 ms, or HandoverTimeout if that is shorter.
	AcknowledgeTimeout time.Duration

	// DrainTimeout is how long Work may take to return once the token is lost. One
	// that does not is left behind, and Run returns a [*StuckError]. Default 5 s.
	DrainTimeout time.Duration

	// Priority orders the processes of one generation: those with 0 take over
	// first, and each further step waits for a fiftieth of Lease more, and at
	// least two Polls, so that it only claims where nobody before it did. From 0
	// to 9.
	Priority int

	// PreferNotToLead makes this process wait for ten steps more than its
	// Priority says, as on a host that is being drained. See
	// [Leader.PreferNotToLead].
	PreferNotToLead bool

	// Registers are the stores of the service besides the catalog's, in which guards
	// refuse stale writes. A process of a higher generation is ready only if it could
	// raise all of them, and proves that again before it asks the holder to hand over.
	// Once it has claimed, it raises them, and its work begins when every one refuses
	// older tokens; until then Status says "leads, not serving" and why.
	Registers []fence.Register

	// Prepare says whether this process could serve if it led: nil if it could, else
	// what is missing, such as a port, credentials or a schema. A process that could
	// not is not ready, claims nothing and asks no holder to hand over: the holder
	// serves on. It is asked every heartbeat, every second while something is missing,
	// and once more before and after a holder pauses; it may prepare things, and has to
	// be quick then. Its calls follow each other, beside what this process does; ctx ends
	// once it leads, or waits no longer. Default: every process could.
	Prepare func(ctx context.Context) error

	// CaughtUp says of a process of a higher generation whether it could lead
	// by what it has read: nil where it could, else what is missing. It is asked
	// every Poll, until the process leads; a ready process that no longer is
	// goes back to catching up. It is called as Prepare is. Default: whoever has read
	// everything could.
	CaughtUp func(ctx context.Context, f *catalog.Follower) error

	// CaughtUpFor is for how long CaughtUp must have said so without a break.
	CaughtUpFor time.Duration

	// CatchUpTimeout is for how long to wait for that, and WhenLate what
	// follows. Default: for ever.
	CatchUpTimeout time.Duration
	WhenLate       Late

	// Clock measures the lease. Default: BootTime.
	Clock Clock

	// Notify is told how this process stands, in the words of sd_notify(3):
	// READY=1 once it has read everything or leads, and a STATUS whenever that
	// changes. It is called as Changed is. Default: exitcodes.Notify, which does
	// nothing unless a service manager listens. A process with several Leaders gives
	// its own.
	Notify func(assignments ...string) error

	// Changed is called after every change of the phase or of who leads, one call
	// at a time and in order, beside the Leader: nothing waits for a call to return,
	// and by then the process may have gone on, as Status says. If a call blocks,
	// the newest 1024 changes wait for it, and older ones are left out. Run returns
	// once the last call has, or after 250 ms.
	Changed func(Status)

	// Logger receives changes of phase and what no caller is told. Its handler is
	// called in order too, and beside the Leader, as that of Catalog.Logger: a log that
	// nobody reads holds up nothing. Default: discard.
	Logger *slog.Logger
}

// Late is what becomes of a process that has not caught up in time.
type Late uint8

const (
	// FailLate ends it with an [*LateError].
	FailLate Late = iota
	// ProceedLate calls it ready nevertheless.
	ProceedLate
)

// Clock says by which clock a lease is measured.
type Clock uint8

const (
	// BootTime goes on while the host is suspended. Reading it costs a system
	// call, about 220 ns. Where the system has none it is Monotonic.
	BootTime Clock = iota
	// Monotonic costs about 40 ns and, on Linux, stands still while the host is
	// suspended: a holder that sleeps for an hour believes its lease until it
	// hears of its successor.
	Monotonic
)

func (c Clock) read() clock.Clock {
	if c == Monotonic {
		return clock.Monotonic
	}
	return clock.Boot
}

// The bounds of a Config.
const (
	minLease    = 300 * time.Millisecond
	maxPriority = 9
)

func (c Config) withDefaults() Config {
	c.Lease = cmp.Or(c.Lease, 7500*time.Millisecond)
	c.Poll = cmp.Or(c.Poll, 100*time.Millisecond)
	c.HandoverTimeout = cmp.Or(c.HandoverTimeout, 5*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 5*time.Second)
	c.AcknowledgeTimeout = cmp.Or(c.AcknowledgeTimeout, min(500*time.Millisecond, c.HandoverTimeout))
	c.Catalog.StoreTimeout = cmp.Or(c.Catalog.StoreTimeout, max(time.Second, min(c.Lease*2/3, 5*time.Second)))
	c.Catalog.RetryBudget = cmp.Or(c.Catalog.RetryBudget, time.Hour)
	c.Catalog.MigrationTimeout = cmp.Or(c.Catalog.MigrationTimeout, catalog.DefaultMigrationTimeout)
	if c.Notify == nil {
		c.Notify = exitcodes.Notify
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Catalog.Logger == nil {
		c.Catalog.Logger = c.Logger
	}
	same := c.Catalog.Logger == c.Logger
	c.Logger = spool.Logger(c.Logger)
	if same { // then one order
		c.Catalog.Logger = c.Logger
	}
	c.Catalog.Logger = spool.Logger(c.Catalog.Logger)
	return c
}

// heartbeat is how often the holder renews its lease: twice in vain, and there
// is still a third try.
func (c Config) heartbeat() time.Duration { return c.Lease / 3 }

// delay is how much longer this process waits than the first of its
// generation.
func (c Config) delay(reluctant bool) time.Duration {
	steps := c.Priority
	if reluctant {
		steps += maxPriority + 1
	}
	return time.Duration(steps) * max(c.Lease/50, 2*c.Poll)
}

// election is what the decisions rest on.
func (c Config) election() election.Settings {
	return election.Settings{
		Generation: c.Catalog.Generation, Lease: c.Lease, HandoverTimeout: c.HandoverTimeout, DrainTimeout: c.DrainTimeout, AutoPromote: c.AutoPromote,
		Delay: c.delay(false), Reluctance: c.delay(true) - c.delay(false),
	}
}

// validate names every mistake at once.
func (c Config) validate() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if c.Catalog.Generation == generation.None {
		errs = append(errs, fmt.Errorf("%w: a process that may lead needs one", generation.ErrMissing))
	}
	wrong(c.Lease < minLease, "Lease is %v, want at least %v", c.Lease, minLease)
	wrong(c.Poll <= 0 || c.Poll > c.heartbeat(), "Poll is %v with a Lease of %v, want more than 0 and at most a third of it", c.Poll, c.Lease)
	wrong(c.HandoverTimeout <= 0, "HandoverTimeout is %v, want more than 0", c.HandoverTimeout)
	wrong(c.DrainTimeout <= 0, "DrainTimeout is %v, want more than 0", c.DrainTimeout)
	wrong(c.AcknowledgeTimeout <= 0 || c.AcknowledgeTimeout > c.HandoverTimeout,
		"AcknowledgeTimeout is %v with a HandoverTimeout of %v, want more than 0 and no more than that", c.AcknowledgeTimeout, c.HandoverTimeout)
	wrong(c.Priority < 0 || c.Priority > maxPriority, "Priority is %d, want 0 to %d", c.Priority, maxPriority)
	wrong(c.HandoverTimeout > 0 && c.delay(c.PreferNotToLead) >= c.HandoverTimeout,
		"Priority %d waits for %v before it claims, and HandoverTimeout is %v, after which an offer is withdrawn: want a longer HandoverTimeout, a shorter Lease or Poll, or a higher priority",
		c.Priority, c.delay(c.PreferNotToLead), c.HandoverTimeout)
	wrong(c.CaughtUpFor < 0 || c.CatchUpTimeout < 0, "CaughtUpFor is %v and CatchUpTimeout %v, want no less than 0", c.CaughtUpFor, c.CatchUpTimeout)
	wrong(c.CatchUpTimeout > 0 && c.CatchUpTimeout <= c.CaughtUpFor, "CatchUpTimeout is %v, and CaughtUpFor alone %v", c.CatchUpTimeout, c.CaughtUpFor)
	wrong(c.WhenLate > ProceedLate, "WhenLate is %d, want FailLate or ProceedLate", c.WhenLate)
	wrong(c.Clock > Monotonic, "Clock is %d, want BootTime or Monotonic", c.Clock)
	if c.Admin != "" {
		errs = append(errs, loopback.Check(c.Admin))
	}
	if c.Peer != "" {
		errs = append(errs, checkPeer(c.Peer))
	}
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(fmt.Errorf("leader: configuration: %w", err), exitcodes.Config)
	}
	return nil
}

// checkPeer refuses an address that processes elsewhere can't call. Names are
// resolved when it is listened to.
func checkPeer(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("the peer address %.64q: %w", address, err)
	}
	if wrong := uncallable(host); wrong != "" {
		return fmt.Errorf("the peer address %.64q %s: others are told it, and call it: name one of this host's addresses", address, wrong)
	}
	return nil
}

// uncallable says what keeps others from calling a host; empty: nothing.
func uncallable(host string) string {
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	switch {
	case err != nil && isNumeric(host), host == "", ip.WithZone("").IsUnspecified():
		return "names no host"
	case ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "names no single host"
	case ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "":
		return "is link-local and names no interface, as in fe80::1%eth0"
	}
	return ""
}

// isNumeric reports whether a name is what resolvers read as an address in an old
// form, such as 0 for 0.0.0.0, since no name ends so.
func isNumeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil
}

// boardConfig is for what is asked of the board while a person or a successor
// waits.
func (c Config) boardConfig() catalog.Config {
	cfg := c.Catalog
	cfg.RetryBudget = min(cfg.RetryBudget, 10*time.Second)
	return cfg
}
