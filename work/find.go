package work

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
)

// Find returns a job with its payload, and whether there is one: a job that is
// done is not there any more. The arguments are those of [Read].
func Find(s catalog.Source, head Head, id ID, now time.Time) (Info, bool, error) {
	info, found, err := find(s, id)
	if err != nil || !found || info.Reason != "" {
		return info, found, err
	}
	b, _, err := open(s, head, now)
	if err != nil {
		return info, false, err
	}
	if it := b.items[id]; it != nil {
		info.State = b.state(it, now)
	}
	return info, true, nil
}

// List calls fn with each live job, in the order of their IDs, and then with each
// dead one, without their payloads, until fn returns false. The arguments are those
// of [Read].
func List(s catalog.Source, head Head, now time.Time, fn func(Info) bool) error {
	b, _, err := open(s, head, now)
	if err != nil {
		return err
	}
	b.tick(now)
	for _, id := range slices.Sorted(maps.Keys(b.items)) {
		info, found, err := find(s, id)
		if err != nil || !found {
			return err
		}
		info.State, info.Payload = b.state(b.items[id], now), nil
		if !fn(info) {
			return nil
		}
	}
	return dead.Scan(s, "", func(key string, rec deadRecord) bool {
		id, err := parseEntry(key)
		info := rec.info(id)
		info.Payload = nil
		return err != nil || fn(info)
	})
}

// find reads a job, live or dead.
func find(s catalog.Source, id ID) (Info, bool, error) {
	job, live, spoilt, err := readJob(s, id.entry())
	if err != nil {
		return Info{}, false, err
	}
	if !live {
		rec, found, err := dead.Get(s, id.entry())
		if err != nil || !found {
			return Info{}, false, err
		}
		return rec.info(id), true, nil
	}
	run, _, spoiltRun := runs.Get(s, id.entry())
	spoilt = errors.Join(spoilt, spoiltRun)
	left, _, err := progress.Get(s, id.entry())
	info := job.info(id, run)
	if spoilt != nil {
		info.Error = spoilt.Error()
	}
	info.Left = len(left)
	return info, true, err
}

func (j jobRecord) info(id ID, run runRecord) Info {
	it := item{member: j.Member, pinned: j.Generation}
	return Info{
		ID: id, Kind: j.Kind, Key: j.Key, Priority: j.Priority, Made: j.Made, MadeAt: j.MadeAt, Due: j.since(),
		Owner: it.owner(), From: j.From, Ref: j.Ref, Size: len(j.Payload), Payload: j.Payload,
		Claim: run.Claim, At: run.At, Attempt: run.Attempt, Interrupted: run.Interrupted, Crashed: run.Crashed,
		NotBefore: run.NotBefore, Error: run.Error,
	}
}

func (r deadRecord) info(id ID) Info {
	info := r.Job.info(id, r.Run)
	info.Reason, info.Text, info.DeadAt = r.Reason, r.Text, r.At
	return info
}
