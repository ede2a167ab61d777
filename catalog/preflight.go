package catalog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

// The names of the checks that [Preflight] makes. A driver's own come behind
// them.
const (
	CheckConfig     = "configuration"
	CheckHosts      = "hosts"
	CheckStore      = "store"
	CheckGeneration = "generation"
	CheckReadable   = "reads the data"
	CheckRollback   = "rollback"
	CheckHolder     = "holder"
	CheckLog        = "log"
	CheckMigrations = "migrations"
	CheckClaims     = "claims"
	CheckLosses     = "losses"
	CheckBoard      = "board"
	CheckProof      = "store check"
	CheckRoundTrip  = "round trip"
	CheckSetup      = "store's setup"
)

// roundTrips is how many reads of the head are measured.
const roundTrips = 20

// A Report is what a preflight has found.
type Report struct {
	Store      string                `json:"store"`
	Generation generation.Generation `json:"generation"`
	Head       driver.Head           `json:"-"`     // as it was found; zero if it could not be read
	Hosts      []driver.Host         `json:"hosts"` // that keep the store; nil if the driver does not tell
	Checks     []driver.Finding      `json:"checks"`

	// Unreachable is why the store could not be asked, where a later try may
	// go through. The checks that follow were not made then.
	Unreachable error `json:"-"`

	// Refused is why no process could claim, with code 78. The checks that follow
	// were made if that is a loss, and not if the store can't be used as it is
	// configured.
	Refused error `json:"-"`

	// P50 and P99 are those of the round trips; zero where there were none.
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
}

// Worst returns the highest grade of all checks.
func (r Report) Worst() driver.Grade {
	worst := driver.Fine
	for _, c := range r.Checks {
		worst = max(worst, c.Grade)
	}
	return worst
}

// Add appends one more check.
func (r *Report) Add(name string, grade driver.Grade, remedy, format string, args ...any) {
	r.Checks = append(r.Checks, driver.Finding{Name: name, Grade: grade, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Preflight says whether a process with cfg would be able to claim the catalog
// in store, and what a deploy of it would mean: whether its generation is free
// and higher than the one that leads, whether it reads the data, whether the
// build that leads could still read them afterwards, and whether the store
// could lose a commit. It writes nothing to database or log, and needs no
// token. A service asks it with the configuration that it would claim with.
//
// It reads the whole log, for as long as that takes and into memory, as the
// claim would. A read that fails in passing is tried again within
// cfg.RetryBudget. It ends with ctx.
func Preflight(ctx context.Context, store driver.Store, cfg Config) Report {
	cfg = cfg.withDefaults()
	p := preflight{Report: Report{Store: store.String(), Generation: cfg.Generation}, store: witnessed(store), cfg: cfg}
	if err := cfg.validate(); err != nil {
		p.Add(CheckConfig, driver.Failure, "correct what is named", "%v", err)
		return p.Report
	}
	p.hosts(ctx)
	if !p.reach(ctx) {
		return p.Report
	}
	p.generation(ctx)
	p.versions(ctx)
	p.holder()
	p.replay(ctx)
	p.claims(ctx)
	p.losses(ctx)
	p.board(ctx)
	p.proof(ctx)
	p.measure(ctx)
	p.probe(ctx)
	return p.Report
}

// preflight is one preflight under way.
type preflight struct {
	Report
	store   *witness
	cfg     Config
	history []driver.Claim // nil until it was read
}

func (p *preflight) ok(name, format string, args ...any) {
	p.Add(name, driver.Fine, "", format, args...)
}

// failed adds the error of a call of the store, with what the driver's table
// says about it.
func (p *preflight) failed(name string, err error) {
	remedy := "try again later"
	var e *driver.Error
	switch {
	case errors.As(err, &e) && e.Remedy != "":
		remedy = e.Remedy
	case errors.As(err, &e) && e.Class.Disposition == exitcodes.None, errors.Is(err, ErrLostCommit), errors.Is(err, driver.ErrCorrupt):
		remedy = "find out why before anything is deployed"
	}
	p.Add(name, driver.Failure, remedy, "%v", err)
}

// hosts asks the driver which servers keep the store, and how each of them is.
func (p *preflight) hosts(ctx context.Context) {
	teller, ok := driver.As[driver.HostTeller](p.store)
	if !ok {
		return
	}
	hosts, err := callStore(ctx, p.cfg.StoreTimeout, teller.Hosts)
	if err != nil {
		p.failed(CheckHosts, err)
		return
	}
	p.Hosts = hosts
	for _, h := range hosts {
		p.Add(CheckHosts, h.Grade, h.Remedy, "%v", h)
	}
}

// reach reads the head, which only a server that takes writes answers.
func (p *preflight) reach(ctx context.Context) bool {
	head, err := ReadHead(ctx, p.store, p.cfg)
	if err != nil {
		p.failed(CheckStore, err)
		switch {
		case transient(err) || ctx.Err() != nil:
			p.Unreachable = err
		case exitcodes.CodeOf(err) == exitcodes.Config:
			p.Refused = err
		}
		return false
	}
	p.Head = head
	if head.IsZero() {
		p.ok(CheckStore, "it answers, and nobody has claimed this catalog yet")
		return true
	}
	p.ok(CheckStore, "it answers: token %v at revision %d", head.Claim.Token, head.Revision)
	return true
}

// generation says whether the generation is given, free and higher than the
// one that leads.
func (p *preflight) generation(ctx context.Context) {
	const next = "`fencepost generation next` hands one out"
	mine, current := p.cfg.Generation, p.Head.Claim
	switch {
	case mine == generation.None:
		p.Add(CheckGeneration, driver.Failure, "give the release a number: "+next, "none is given, and a writer needs one")
	case mine < current.Token.Generation:
		p.Add(CheckGeneration, driver.Failure, "give this build a new number, also where it is an old build that comes back: "+next,
			"generation %v would be superseded: %v is the newest token, claimed by %v", mine, current.Token, current.Holder)
	case mine == current.Token.Generation:
		p.sameGeneration(current)
	default:
		p.handedOut(ctx)
	}
}

func (p *preflight) sameGeneration(current driver.Claim) {
	if err := sameBuild(current, p.cfg); err != nil {
		p.Add(CheckGeneration, driver.Failure, "give this build a new number: `fencepost generation next` hands one out", "%v", err)
		return
	}
	p.Add(CheckGeneration, driver.Warning, "give a new release a new number; a further process of the same release keeps it",
		"generation %v has claimed already, as %v of %v: a further process of it is a standby", p.cfg.Generation, current.Token, current.Holder)
}

// handedOut compares with the numbers that were handed out.
func (p *preflight) handedOut(ctx context.Context) {
	mine := p.cfg.Generation
	last, err := NewBoard(p.store, p.cfg).LastGeneration(ctx)
	switch {
	case err != nil:
		p.failed(CheckGeneration, err)
	case last != generation.None && mine > last:
		p.Add(CheckGeneration, driver.Warning, "take the number from `fencepost generation next`, or hand out your own by `fencepost generation reserve`",
			"generation %v is higher than %v, which leads, and was never handed out: %v was the last, and %v may be handed out until a process of it is ready",
			mine, p.Head.Claim.Token.Generation, last, mine)
	case p.Head.IsZero():
		p.ok(CheckGeneration, "generation %v would be the first", mine)
	default:
		p.ok(CheckGeneration, "generation %v is free, and higher than %v", mine, p.Head.Claim.Token.Generation)
	}
}

// versions says whether this build reads the data, and whether the build that
// leads would after this one's migrations.
func (p *preflight) versions(ctx context.Context) {
	current := p.Head.Claim
	if err := checkVersion(current, p.cfg.Migrations); err != nil {
		p.Add(CheckReadable, driver.Failure, "deploy a build that knows the data's version", "%v", err)
		return
	}
	build := dataVersion(p.cfg.Migrations)
	version, readableBy := versionsAfter(current, p.cfg.Migrations)
	p.ok(CheckReadable, "the data are at version %d, readable by builds that know version %d or later; this build knows %d", current.DataVersion, current.ReadableBy, build)
	if p.Head.IsZero() {
		p.ok(CheckRollback, "nobody leads yet")
		return
	}
	p.rollback(ctx, version, readableBy)
}

// rollback compares the versions after the claim with what the build that
// leads knows: at least what it was let in with, at most the version of the
// data, and exactly that where its own generation brought them there.
func (p *preflight) rollback(ctx context.Context, version, readableBy uint64) {
	const remedy = "go forward only, or first deploy a build that reads version %d as well; see docs/rollback.md"
	current := p.Head.Claim
	switch {
	case readableBy <= current.ReadableBy:
		p.ok(CheckRollback, "the build that leads can read the data afterwards: version %d, readable by %d", version, readableBy)
	case readableBy > current.DataVersion:
		p.Add(CheckRollback, driver.Warning, fmt.Sprintf(remedy, version),
			"the build that leads can't come back after this one: it knows data version %d at most, and then they are at version %d, readable by %d",
			current.DataVersion, version, readableBy)
	case p.knowsItsData(ctx):
		p.ok(CheckRollback, "the build that leads knows data version %d, and afterwards they are at version %d, readable by %d", current.DataVersion, version, readableBy)
	default:
		p.Add(CheckRollback, driver.Warning, "run the preflight of the build that leads against a copy, or compare its last migration",
			"the build that leads knows a data version from %d to %d, and afterwards one needs %d: it is not known whether it could come back",
			current.ReadableBy, current.DataVersion, readableBy)
	}
}

// knowsItsData reports whether the generation that leads has itself brought the
// data to the version that they have.
func (p *preflight) knowsItsData(ctx context.Context) bool {
	current := p.Head.Claim
	history, err := p.readHistory(ctx)
	if err != nil {
		return false // told by the check of the claims
	}
	var before uint64
	for _, c := range history {
		if c.Token.Generation < current.Token.Generation {
			before = c.DataVersion
		}
	}
	return before < current.DataVersion
}

func (p *preflight) holder() {
	if p.Head.IsZero() {
		p.ok(CheckHolder, "nobody ever claimed")
		return
	}
	c := p.Head.Claim
	p.ok(CheckHolder, "%v was claimed by %v", c.Token, c.Holder)
}

// replay reads the log as a claim would.
func (p *preflight) replay(ctx context.Context) {
	began := time.Now()
	r := newReplica(p.store, p.cfg)
	if err := again(ctx, p.cfg.RetryBudget, r.catchUp); err != nil {
		p.failed(CheckLog, err)
		return
	}
	p.ok(CheckLog, "read up to revision %d and applied in %v", r.head.Revision, time.Since(began).Round(time.Millisecond))
	p.migrations(ctx, r)
}

// ErrNameOnly is what the function of a migration returns if its program knows
// the migration's versions alone, as the command does. [Preflight] then leaves
// out what only a run of it can tell.
var ErrNameOnly = errors.New("catalog: the migration is known by its versions alone")

// migrations runs the migrations as a rehearsal does, and says how long nobody
// could write for their sake.
func (p *preflight) migrations(ctx context.Context, r *replica) {
	if !pending(r.head.Claim, p.cfg.Migrations) || checkVersion(r.head.Claim, p.cfg.Migrations) != nil {
		return // nothing to run, or told already
	}
	begun := time.Now()
	dry, err := r.dryRun(ctx, r.head, r.state, newTrace(), nil)
	switch {
	case errors.Is(err, ErrNameOnly):
		return
	case err != nil && ctx.Err() != nil:
		p.Add(CheckMigrations, driver.Failure, "give the preflight more time, or find out what the migrations wait for",
			"they had not finished after %v: %v", time.Since(begun).Round(time.Millisecond), err)
		return
	case err != nil:
		p.Add(CheckMigrations, driver.Failure, "correct the migration, or the data that it can't change", "%v", err)
		return
	}
	took, sets, deletes := dry.took.Round(time.Millisecond), 0, 0
	for _, s := range dry.steps {
		sets, deletes = sets+s.Sets, deletes+s.Deletes
	}
	text := fmt.Sprintf("%d of them took %v on the data as of revision %d: %d entries set, %d deleted, %d bytes", len(dry.steps), took, r.head.Revision, sets, deletes, len(dry.payload))
	if limit := p.cfg.MigrationTimeout; dry.took > limit {
		p.Add(CheckMigrations, driver.Warning, "raise MigrationTimeout, deploy while nothing writes what they read, or make them read less",
			"%s; that is longer than MigrationTimeout (%v): if a commit changes what they read, the claim fails with code 75 and writes nothing", text, limit)
		return
	}
	p.ok(CheckMigrations, "%s; writers pause for one handover and one commit, and for about %v more only if commits keep changing what they read", text, took)
}

func (p *preflight) readHistory(ctx context.Context) ([]driver.Claim, error) {
	if p.history != nil {
		return p.history, nil
	}
	history, err := History(ctx, p.store)
	if err != nil {
		return nil, err
	}
	p.history = history
	return history, nil
}

// claims reads the history and checks that it is one chain that grows.
func (p *preflight) claims(ctx context.Context) {
	const remedy = "stop every writer and compare with a backup"
	history, err := p.readHistory(ctx)
	if err != nil {
		p.failed(CheckClaims, err)
		return
	}
	var prior driver.Claim
	for _, c := range history {
		if c.PriorClaim != prior.ID || c.Token.Compare(prior.Token) <= 0 || c.Token.Epoch <= prior.Token.Epoch {
			p.Add(CheckClaims, driver.Failure, remedy, "the claim %v at revision %d does not follow %v at revision %d", c.Token, c.Revision, prior.Token, prior.Revision)
			return
		}
		prior = c
	}
	if prior.Token.Compare(p.Head.Claim.Token) < 0 {
		p.Add(CheckClaims, driver.Failure, remedy, "the history ends with %v, and the head says %v", prior.Token, p.Head.Claim.Token)
		return
	}
	p.ok(CheckClaims, "%d claims, each built on the one before", len(history))
}

// losses says what the store was found to have lost.
func (p *preflight) losses(ctx context.Context) {
	record, err := callStore(ctx, p.cfg.StoreTimeout, p.store.Losses)
	var led ledger
	if err == nil {
		led, err = readLedger(record)
	}
	if err != nil {
		p.failed(CheckLosses, err)
		return
	}
	ended := 0
	for _, l := range led.Losses {
		switch {
		case l.Stands() && !p.cfg.AcceptLoss:
			p.Refused = forbid(p.store, led.standing())
			p.Add(CheckLosses, driver.Failure, l.remedy(), "%v; no process claims until somebody has dealt with that", l)
		case l.Open():
			p.Add(CheckLosses, driver.Warning, l.remedy(), "%v; this forbids no claim", l)
		default:
			ended++
		}
	}
	switch open := len(led.Losses) - ended; {
	case open > 0:
	case ended == 0:
		p.ok(CheckLosses, "no process has found that the store lost a commit")
	default:
		p.ok(CheckLosses, "%d in the history, each of which somebody has dealt with", ended)
	}
}

func (p *preflight) board(ctx context.Context) {
	var notes []driver.Note
	err := again(ctx, p.cfg.RetryBudget, func(ctx context.Context) (err error) {
		notes, err = callStore(ctx, p.cfg.StoreTimeout, func(ctx context.Context) ([]driver.Note, error) { return p.store.Notes(ctx, "") })
		return err
	})
	if err != nil {
		p.failed(CheckBoard, err)
		return
	}
	p.ok(CheckBoard, "%d notes", len(notes))
}

// proof shows the newest check of the store. It makes none, since that writes.
func (p *preflight) proof(ctx context.Context) {
	const remedy = "run `fencepost store check`"
	last, made, err := LastProof(ctx, p.store, p.cfg)
	_, can := driver.As[driver.Scratcher](p.store)
	switch {
	case err != nil:
		p.failed(CheckProof, err)
	case made && !last.Passed:
		p.Add(CheckProof, driver.Failure, "find out what lets two writers win, and "+remedy+" afterwards", "%v: %s", last, last.Failure)
	case made:
		p.ok(CheckProof, "%v", last)
	case !can:
		p.Add(CheckProof, driver.Fine, "", "this driver opens no scratch place, so that whether its store refuses can't be checked")
	case p.Head.IsZero():
		p.ok(CheckProof, "none was made yet: the first claim makes it, or `fencepost store check` before")
	default:
		p.Add(CheckProof, driver.Warning, remedy, "none was ever made on this catalog, so that it is not known whether its store refuses writes whose condition does not hold")
	}
}

// measure reads the head again and again.
func (p *preflight) measure(ctx context.Context) {
	var took []time.Duration
	for range roundTrips {
		err := again(ctx, p.cfg.RetryBudget, func(ctx context.Context) error {
			began := time.Now()
			_, err := callStore(ctx, p.cfg.StoreTimeout, p.store.Head)
			if err == nil {
				took = append(took, time.Since(began))
			}
			return err
		})
		if err != nil {
			p.failed(CheckRoundTrip, err)
			return
		}
	}
	slices.Sort(took)
	p.P50, p.P99 = quantile(took, 0.50), quantile(took, 0.99)
	text := fmt.Sprintf("%d reads of the head: p50 %v, p99 %v", len(took), p.P50.Round(time.Microsecond), p.P99.Round(time.Microsecond))
	if slow := p.cfg.PollInterval; p.P50 > slow {
		p.Add(CheckRoundTrip, driver.Warning, "bring the service and its store nearer to each other, or poll less often", "%s, slower than PollInterval, %v", text, slow)
		return
	}
	p.ok(CheckRoundTrip, "%s", text)
}

// quantile returns the value of sorted that a share of them does not exceed.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[max(int(math.Ceil(share*float64(len(sorted)))), 1)-1]
}

// probe asks the driver about its store.
func (p *preflight) probe(ctx context.Context) {
	prober, ok := driver.As[driver.Prober](p.store)
	if !ok {
		p.Add(CheckSetup, driver.Fine, "", "this driver does not tell how its store is set up")
		return
	}
	var findings []driver.Finding
	err := again(ctx, p.cfg.RetryBudget, func(ctx context.Context) (err error) {
		findings, err = callStore(ctx, p.cfg.StoreTimeout, prober.Probe)
		return err
	})
	if err != nil {
		p.failed(CheckSetup, err)
		return
	}
	p.Checks = append(p.Checks, findings...)
}
