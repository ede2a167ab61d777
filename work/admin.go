package work

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// ErrNotDead means that a job is not on the dead list.
var ErrNotDead = errors.New("work: the job is not on the dead list")

// MaxReason is the size of the longest reason of Abandon, in bytes.
const MaxReason = 500

// Retry moves a job from the dead list back, with its ID, as if it had just been
// enqueued. A live job that waits for its retry may run at once; one that runs is
// left alone.
func Retry(tx *catalog.Tx, id ID) error {
	rec, found, err := getDead(tx, id)
	if err != nil {
		return err
	}
	if !found {
		return hurry(tx, id)
	}
	if rec.Reason == Malformed {
		return fmt.Errorf("%w: %d is a request that can't be read: enqueue it anew and clear this one", ErrInvalid, id)
	}
	now := time.Now().UTC().Round(0)
	rec.Job.RunAt, rec.Job.Again = time.Time{}, now
	rec.Run = runRecord{Serial: rec.Run.Serial, At: now, Interrupted: rec.Run.Interrupted, Crashed: rec.Run.Crashed, Error: rec.Run.Error}
	if _, err := dead.Delete(tx, id.entry()); err != nil {
		return err
	}
	if err := jobs.Set(tx, id.entry(), rec.Job); err != nil {
		return err
	}
	if err := runs.Set(tx, id.entry(), rec.Run); err != nil {
		return err
	}
	sums := tally{}
	sums.of(rec.Job.Kind).Retried++
	return sums.write(tx)
}

// getDead reads a job on the dead list. One that can't be read is the request's
// mistake, so that no other request fails with it.
func getDead(tx *catalog.Tx, id ID) (deadRecord, bool, error) {
	rec, found, err := dead.Get(tx, id.entry())
	if err != nil && found {
		err = fmt.Errorf("%w: %d is on the dead list, and can't be read by this build: %w", ErrInvalid, id, err)
	}
	return rec, found, err
}

// hurry ends a live job's wait for its retry.
func hurry(tx *catalog.Tx, id ID) error {
	_, found, err := catalog.Bytes(jobs.Name()).Get(tx, id.entry())
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	run, found, err := runs.Get(tx, id.entry())
	if err != nil && found {
		return fmt.Errorf("%w: what became of %d can't be read by this build: %w", ErrInvalid, id, err)
	}
	if err != nil || !found || run.NotBefore.IsZero() {
		return err
	}
	run.NotBefore, run.Wait = time.Time{}, 0
	return runs.Set(tx, id.entry(), run)
}

// Abandon moves a live job to the dead list. A run of it ends with [ErrAbandoned],
// and can't complete it any more.
func Abandon(tx *catalog.Tx, id ID, reason string) error {
	if reason == "" || len(reason) > MaxReason {
		return fmt.Errorf("%w: a reason of %d bytes, want 1 to %d", ErrInvalid, len(reason), MaxReason)
	}
	job, found, _, err := readJob(tx, id.entry())
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	sums := tally{}
	if checkName(job.Kind) != nil {
		if job.Kind, err = lostKind(tx); err != nil {
			return err
		}
		if job.Kind == malformedKind { // no kind has enqueued it
			sums.of(job.Kind).Enqueued++
		}
	}
	run, found, err := runs.Get(tx, id.entry())
	claimed := !run.Claim.IsZero()
	if err != nil && found { // it is lost, and its job is given up anyway
		run = runRecord{}
		claimed, err = lostClaim(tx, job.Kind)
	}
	if err != nil {
		return err
	}
	t := sums.of(job.Kind)
	if claimed {
		t.Withdrawn++
		run.Claim = fence.Token{}
	}
	if err := bury(tx, t, id, nil, deadRecord{Job: jobRecord{Kind: job.Kind}, Run: run, Reason: Abandoned, Text: reason, At: time.Now().UTC().Round(0), By: tx.Token()}); err != nil {
		return err
	}
	return sums.write(tx)
}

// lostKind returns the first kind of which the totals count more jobs than can be read;
// malformedKind if there is none.
func lostKind(tx *catalog.Tx) (string, error) {
	live := map[string]int64{}
	err := catalog.Bytes(jobs.Name()).Scan(tx, "", func(_ string, raw []byte) bool {
		var rec indexRecord
		if json.Unmarshal(raw, &rec) == nil {
			live[rec.Kind]++
		}
		return true
	})
	lost := malformedKind
	scanned := totals.Scan(tx, "", func(kind string, t Totals) bool {
		if t.Live() <= live[kind] {
			return true
		}
		lost = kind
		return false
	})
	return lost, errors.Join(err, scanned)
}

// lostClaim reports whether the totals of a kind count more claims than can be read.
func lostClaim(tx *catalog.Tx, kind string) (bool, error) {
	sum, _, err := totals.Get(tx, kind)
	if err != nil {
		return false, err
	}
	var claims int64
	var failed error
	err = catalog.Bytes(runs.Name()).Scan(tx, "", func(key string, raw []byte) bool {
		var run runRecord
		if json.Unmarshal(raw, &run) != nil || run.Claim.IsZero() {
			return true
		}
		var job jobRecord
		if job, _, _, failed = readJob(tx, key); job.Kind == kind {
			claims++
		}
		return failed == nil
	})
	return sum.Claimed() > claims, errors.Join(err, failed)
}

// Clear removes a job from the dead list, for good.
func Clear(tx *catalog.Tx, id ID) error {
	rec, found, err := getDead(tx, id)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: %d", ErrNotDead, id)
	}
	if _, err := dead.Delete(tx, id.entry()); err != nil {
		return err
	}
	sums := tally{}
	sums.of(rec.Job.Kind).Cleared++
	return sums.write(tx)
}

// An Owner is whom jobs are pinned to: a generation or a member, one of them.
type Owner struct {
	Generation generation.Generation
	Member     string
}

// String names the owner.
func (o Owner) String() string {
	if o.Member != "" {
		return "member " + o.Member
	}
	return fmt.Sprintf("generation %d", o.Generation)
}

// Reassign lets the holder run the jobs that are pinned to an owner which is gone
// for good, and returns how many these are. A job that runs now runs on. Each job
// says from then on whose it was. If the jobs do not all fit into one commit, Update
// returns driver.ErrTooLarge; a request in the inbox takes as many commits as it needs.
func Reassign(tx *catalog.Tx, from Owner) (int, error) {
	moved, _, err := reassign(tx, from, math.MaxInt)
	return moved, err
}

// reassign does so until it has rewritten as many bytes of jobs, and reports whether
// there are more.
func reassign(tx *catalog.Tx, from Owner, bytes int) (moved int, more bool, err error) {
	if (from.Generation == generation.None) == (from.Member == "") {
		return 0, false, fmt.Errorf("%w: reassign from a generation or from a member", ErrInvalid)
	}
	current := tx.Token().Generation
	if from.Generation != generation.None && from.Generation >= current {
		return 0, false, fmt.Errorf("%w: generation %d is not gone: the holder is of generation %d", ErrInvalid, from.Generation, current)
	}
	pins := map[string]bool{}
	if err := scanKinds(tx, func(kind string, rec kindRecord) bool { pins[kind] = rec.Pin == SameGeneration.String(); return true }); err != nil {
		return 0, false, err
	}
	var failed error
	err = catalog.Bytes(jobs.Name()).Scan(tx, "", func(key string, raw []byte) bool {
		var rec jobRecord
		if json.Unmarshal(raw, &rec) != nil {
			return true // status shows it
		}
		pinned := rec.Generation
		if pinned == generation.None && pins[rec.Kind] {
			pinned = rec.Made.Generation
		}
		switch {
		case from.Member != "" && rec.Member == from.Member:
			rec.Member = ""
		case from.Generation != generation.None && pinned == from.Generation:
			rec.Generation = current
		default:
			return true
		}
		if more = bytes <= 0; more {
			return false
		}
		rec.From = from.String()
		moved++
		bytes -= len(raw)
		failed = jobs.Set(tx, key, rec)
		return failed == nil
	})
	return moved, more, errors.Join(err, failed)
}
