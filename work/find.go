package work

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// Find returns a job with its payload, and whether there is one. A job that is done is
// not there any more. Nor is one of a [Latest] key once the run of a newer job has done
// it, or has gone to the dead list with it: ask for what the job was about then, and not
// for its ID. The arguments are those of [Read]; it reads every job.
func Find(s catalog.Source, head driver.Head, id ID, now time.Time) (Info, bool, error) {
	info, found, err := find(s, id)
	if err != nil || !found || info.Reason != "" {
		return info, found, err
	}
	r, err := newReading(s, head, now)
	if err != nil {
		return info, false, err
	}
	info.State = Broken
	if it := r.items[id]; it != nil {
		info.State, info.Owner = r.state(it, now), it.owner()
	}
	return info, true, nil
}

// List calls fn with each live job, in the order of their IDs, and then with each
// dead one, without their payloads, until fn returns false. The arguments are those
// of [Read]. Of a job that can't be read wholly it says what is known.
func List(s catalog.Source, head driver.Head, now time.Time, fn func(Info) bool) error {
	r, err := newReading(s, head, now)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(r.items)) {
		it := r.items[id]
		info, found, err := find(s, id)
		if err != nil || !found {
			info = Info{ID: id, Kind: it.shelf.Name, Key: it.key, Due: time.Unix(0, it.since).UTC(), Error: "the job can't be read"}
		}
		info.State, info.Owner, info.Payload = r.state(it, now), it.owner(), nil
		if !fn(info) {
			return nil
		}
	}
	more := true
	return readAll(r, dead, func(key string, rec deadRecord) {
		id, err := parseEntry(key)
		if !more || err != nil {
			return
		}
		info := rec.info(id)
		info.Payload = nil
		more = fn(info)
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
		Owner: it.owner(), From: cmp.Or(j.From, run.Adopted), Ref: j.Ref, Size: len(j.Payload), Payload: j.Payload,
		Claim: run.Claim, At: run.At, Attempt: run.Attempt, Interrupted: run.Interrupted, Crashed: run.Crashed,
		NotBefore: run.NotBefore, Error: run.Error,
	}
}

func (r deadRecord) info(id ID) Info {
	info := r.Job.info(id, r.Run)
	info.Reason, info.Text, info.DeadAt = r.Reason, r.Text, r.At
	return info
}
