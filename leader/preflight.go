package leader

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// The names of the checks that [Preflight] adds.
const (
	CheckPromotion = "promotion"
	CheckHeartbeat = "heartbeat"
	CheckOthers    = "other catalogs"
)

// Preflight is [catalog.Preflight] for a service that this package runs: it
// says besides which generation is promoted, and whether the holder gives signs
// of life; of a catalog that nobody ever claimed, which others its store has. It writes
// nothing.
func Preflight(ctx context.Context, store driver.Store, cfg catalog.Config) catalog.Report {
	store = catalog.Witnessed(store) // for what is asked besides
	r := catalog.Preflight(ctx, store, cfg)
	if slices.ContainsFunc(r.Checks, func(f driver.Finding) bool {
		return f.Grade == driver.Failure && (f.Name == catalog.CheckConfig || f.Name == catalog.CheckStore)
	}) {
		return r // nothing more can be asked
	}
	checkPromotion(ctx, store, cfg, &r)
	checkHeartbeat(ctx, store, cfg, &r)
	checkOthers(ctx, store, &r)
	return r
}

// unread is the remedy where a note of the board can't be read.
const unread = "look at the board, which `fencepost status` reads; deploy again once it can be read"

const higher = "give this build a new number: `fencepost generation next` hands one out"

// checkPromotion says whether another generation is meant to lead.
func checkPromotion(ctx context.Context, store driver.Store, cfg catalog.Config, r *catalog.Report) {
	intent, err := ReadIntent(ctx, store, cfg)
	mine, leads := cfg.Generation, r.Head.Claim.Token.Generation
	by := intent.By
	switch promoted := intent.Generation; {
	case err != nil:
		r.Add(CheckPromotion, driver.Failure, unread, "%v", err)
	case intent.aborts(mine) && leads < mine:
		r.Add(CheckPromotion, driver.Failure, higher, "this generation was given up, and can never lead")
	case promoted == generation.None:
		r.Add(CheckPromotion, driver.Fine, "", "none is asked for")
	case promoted > mine && mine != generation.None:
		r.Add(CheckPromotion, driver.Failure, higher,
			"generation %v, above this one, was promoted by %s: this one can't be", promoted, by)
	case promoted > leads && promoted != mine:
		r.Add(CheckPromotion, driver.Warning, "wait until it leads, or see that its deploy is given up before this one is promoted",
			"generation %v was promoted by %s and has not claimed yet", promoted, by)
	case promoted == mine && promoted > leads:
		r.Add(CheckPromotion, driver.Warning, "know that this generation leads as soon as it is ready",
			"this generation was promoted already, by %s", by)
	default:
		r.Add(CheckPromotion, driver.Fine, "", "generation %v was promoted by %s, and is done", promoted, by)
	}
}

// checkHeartbeat says whether the holder is alive, for people: by its clock and
// ours. A deploy needs no living holder.
func checkHeartbeat(ctx context.Context, store driver.Store, cfg catalog.Config, r *catalog.Report) {
	const old = time.Minute
	beat, err := ReadBeat(ctx, store, cfg)
	age := time.Since(beat.At).Round(time.Millisecond)
	said, _ := beat.State()
	ended, how := said.Ended()
	switch {
	case err != nil:
		r.Add(CheckHeartbeat, driver.Failure, unread, "%v", err)
	case r.Head.IsZero():
		r.Add(CheckHeartbeat, driver.Fine, "", "nobody ever claimed")
	case beat.At.IsZero() || beat.Claim != r.Head.Claim.ID:
		r.Add(CheckHeartbeat, driver.Warning, "see that a process leads, or know that none does", "there is none of the newest claim")
	case beat.Left:
		r.Add(CheckHeartbeat, driver.Warning, "see that a process leads, or know that none does", "the holder has left, %v ago", age)
	case ended:
		r.Add(CheckHeartbeat, driver.Warning, "see that a process leads, or know that none does", "the holder's process has ended: %s", how)
	case age > old:
		r.Add(CheckHeartbeat, driver.Warning, "see that the holder is alive, or know that it is not", "the last one is %v old", age)
	default:
		r.Add(CheckHeartbeat, driver.Fine, "", "%v ago", age)
	}
}

// checkOthers names the other catalogs of the store if nobody ever claimed this one.
func checkOthers(ctx context.Context, store driver.Store, r *catalog.Report) {
	lister, ok := driver.As[driver.Lister](store)
	if !ok || !r.Head.IsZero() {
		return
	}
	names, more, err := lister.OtherCatalogs(ctx)
	list := strings.Join(names, ", ")
	if more {
		list += " and more"
	}
	switch {
	case err != nil:
		r.Add(CheckOthers, driver.Warning, "see that the name of the catalog is spelled as it was meant", "not known: %v", err)
	case len(names) > 0:
		r.Add(CheckOthers, driver.Warning, "see that the name of the catalog is spelled as it was meant", "nobody ever claimed this one; the same store has %s", list)
	default:
		r.Add(CheckOthers, driver.Fine, "", "none is in the same store")
	}
}
