package work

// Totals count what has happened to the jobs of a kind since the first one. They
// are changed in the commits that they count, so they add up at every revision.
type Totals struct {
	Enqueued  int64 `json:"enqueued"`
	Completed int64 `json:"completed"`
	Merged    int64 `json:"merged,omitempty"`  // done by the run of a newer job of the key
	Died      int64 `json:"died,omitempty"`    // moved to the dead list
	Retried   int64 `json:"retried,omitempty"` // moved back from it by a person
	Cleared   int64 `json:"cleared,omitempty"` // removed from it by a person

	// Claims, by why the job was claimed:
	Fresh       int64 `json:"fresh,omitempty"`        // it had never run
	Again       int64 `json:"again,omitempty"`        // after a failure, a stop or a person's retry
	AfterCrash  int64 `json:"after_crash,omitempty"`  // its process had ended within its generation
	AfterDeploy int64 `json:"after_deploy,omitempty"` // its process was superseded

	// Runs that ended otherwise than by completing:
	Failed    int64 `json:"failed,omitempty"`
	Released  int64 `json:"released,omitempty"`  // interrupted by a stop, and given back
	Lapsed    int64 `json:"lapsed,omitempty"`    // its processes had ended too often
	Withdrawn int64 `json:"withdrawn,omitempty"` // its job was abandoned
	Joined    int64 `json:"joined,omitempty"`    // the run of a newer job of the key does its job too
}

// Live returns how many jobs are neither done nor dead.
func (t Totals) Live() int64 { return t.Enqueued + t.Retried - t.Completed - t.Merged - t.Died }

// Dead returns how many jobs are on the dead list.
func (t Totals) Dead() int64 { return t.Died - t.Retried - t.Cleared }

// Claims returns how many runs were begun.
func (t Totals) Claims() int64 { return t.Fresh + t.Again + t.AfterCrash + t.AfterDeploy }

// Claimed returns how many live jobs have a claim: those that run, the orphans, and
// those that are suspended.
func (t Totals) Claimed() int64 {
	taken := t.AfterCrash + t.AfterDeploy // each ended the claim before it
	return t.Claims() - taken - t.Completed - t.Failed - t.Released - t.Lapsed - t.Withdrawn - t.Joined
}

// least returns the smallest of the counts.
func (t Totals) least() int64 {
	return min(t.Enqueued, t.Completed, t.Merged, t.Died, t.Retried, t.Cleared, t.Fresh, t.Again, t.AfterCrash, t.AfterDeploy,
		t.Failed, t.Released, t.Lapsed, t.Withdrawn, t.Joined)
}

func (t Totals) plus(u Totals) Totals { return t.add(u, 1) }

func (t Totals) minus(u Totals) Totals { return t.add(u, -1) }

func (t Totals) add(u Totals, sign int64) Totals {
	t.Enqueued += sign * u.Enqueued
	t.Completed += sign * u.Completed
	t.Merged += sign * u.Merged
	t.Died += sign * u.Died
	t.Retried += sign * u.Retried
	t.Cleared += sign * u.Cleared
	t.Fresh += sign * u.Fresh
	t.Again += sign * u.Again
	t.AfterCrash += sign * u.AfterCrash
	t.AfterDeploy += sign * u.AfterDeploy
	t.Failed += sign * u.Failed
	t.Released += sign * u.Released
	t.Lapsed += sign * u.Lapsed
	t.Withdrawn += sign * u.Withdrawn
	t.Joined += sign * u.Joined
	return t
}
