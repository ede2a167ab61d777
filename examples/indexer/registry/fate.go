package registry

import (
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

// A Stage says how far a change has come.
type Stage string

// The stages of a change.
const (
	Queued   Stage = "queued"       // its sync waits, maybe for another sync
	Running  Stage = "running"      // a sync runs that will read it
	Retrying Stage = "retrying"     // a sync has failed, and will be tried again
	InIndex  Stage = "in the index" // the index has it, or what followed it
	Dead     Stage = "dead"         // its sync was given up; an operator can have it retried
	Lost     Stage = "lost"         // no job will do it: an operator cleared it from the dead list
)

// A Fate is what has become of a change.
type Fate struct {
	Change
	Stage   Stage     `json:"stage"`
	At      time.Time `json:"at"`            // when it was accepted
	Job     work.ID   `json:"job,omitempty"` // the sync that is meant to do it
	Attempt int       `json:"attempt,omitempty"`
	Error   string    `json:"error,omitempty"`       // of the newest failure
	Retry   time.Time `json:"next_attempt,omitzero"` // not before that

	// Of a change that is in the index:
	Commit string      `json:"commit,omitempty"`
	Token  fence.Token `json:"token,omitzero"`

	since time.Time // when the job's newest run began or failed
}

// Tell returns what has become of a change. It is derived from what the index is known
// to have and from the jobs of the package, all at one revision: so it survives
// restarts and promotions, and a sync that did the work of several jobs tells of all
// their changes. Head is the head that s is of. An error wraps [ErrNotFound] if there
// is no such change.
func Tell(s catalog.Source, head driver.Head, id string, now time.Time) (Fate, error) {
	rec, found, err := changes.Get(s, id)
	if err != nil {
		return Fate{}, err
	}
	if !found {
		return Fate{}, ErrNotFound
	}
	f := Fate{Change: rec.Change, At: rec.At, Job: rec.Job}
	has, _, err := indexed.Get(s, rec.Name)
	if err != nil {
		return Fate{}, err
	}
	if has.Number >= rec.Number {
		f.Stage, f.Job, f.Commit, f.Token = InIndex, 0, has.Commit, has.Token
		return f, nil
	}
	f.Stage = Lost
	err = work.List(s, head, now, func(job work.Info) bool {
		if job.Kind == SyncKind && job.Key == rec.Name && job.ID >= rec.Job {
			f.consider(job)
		}
		return true
	})
	return f, err
}

// consider takes what a job of the package does as the change's stage, if that says
// more than what is known, or the same and is newer. The job is the change's own or a later one: each of them
// reads the change when it runs.
func (f *Fate) consider(job work.Info) {
	stage := stageOf(job)
	known, says := f.Stage.certainty(), stage.certainty()
	if says < known || says == known && !job.At.After(f.since) {
		return
	}
	f.since = job.At
	f.Stage, f.Job, f.Attempt, f.Error, f.Retry = stage, job.ID, job.Attempt, job.Error, time.Time{}
	switch stage {
	case Retrying:
		f.Retry = job.NotBefore
	case Dead:
		f.Error = job.Text
	}
}

// certainty orders stages by how much they say. A live job will do what a dead one has
// not done.
func (s Stage) certainty() int {
	return slices.Index([]Stage{Lost, Dead, Queued, Retrying, Running}, s)
}

// stageOf returns what a job means for the changes that it reads.
func stageOf(job work.Info) Stage {
	switch {
	case job.State == "":
		return Dead
	case job.State == work.Running:
		return Running
	case job.Error != "":
		return Retrying
	default:
		return Queued
	}
}
