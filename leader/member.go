package leader

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/identity"
)

// memberPrefix begins the key of every member's note. The rest is the ID of one Run.
const memberPrefix = "member/"

// Limits of what a member says of itself, in bytes, and of how many are read.
const (
	maxMemberName   = 128 // and of a build
	maxMemberReason = 256

	// MaxMembers is how many notes of members [ReadMembers] reads at most.
	MaxMembers = 500
)

// unheard is how many leases a member may be silent before its note is removed.
const unheard = 3

// A Member is what one process of the service says of itself on the board. Its
// times are by its own clock, for people only.
type Member struct {
	ID         string                `json:"id"` // of one Run
	Name       string                `json:"name"`
	Build      string                `json:"build"`
	Generation generation.Generation `json:"generation"`
	Phase      string                `json:"phase"`  // the name of a Phase; a later build may have others
	Since      time.Time             `json:"since"`  // of the phase
	Reason     string                `json:"reason"` // of the phase, or why the process is not ready
	Ready      bool                  `json:"ready"`  // it holds the token, or could lead
	Serving    bool                  `json:"serving"`
	Token      *fence.Token          `json:"token"`         // that it holds; null: none
	Revision   uint64                `json:"revision"`      // up to which it had read or written when it wrote this
	Lease      float64               `json:"lease_seconds"` // of its configuration: it writes at least once a lease
	Seq        uint64                `json:"seq"`           // grows with every write
	At         time.Time             `json:"at"`            // of this write
	Admin      string                `json:"admin"`
	Peer       string                `json:"peer"`
	Host       string                `json:"host"` // the boot and network that a loopback Admin is of

	// Process is the identity of the process, by which another process of its host
	// knows of its end. It is empty if the system tells none.
	Process string `json:"process,omitempty"`
}

// memberOf returns what a process with status s says of itself, without what
// changes at every write.
func (l *Leader) memberOf(id string, s Status) Member {
	h := l.cfg.Catalog.Holder
	process, _ := identity.Self() // without one its end is noticed later
	return Member{
		ID: id, Name: cut(h.Name, maxMemberName), Build: cut(h.Build, maxMemberName), Generation: s.Generation,
		Phase: s.Phase.String(), Since: s.Since.UTC().Truncate(time.Microsecond), Reason: cut(s.Reason, maxMemberReason),
		Ready: s.Ready, Serving: s.Serving, Token: s.Token, Lease: l.cfg.Lease.Seconds(),
		Admin: s.Admin, Peer: l.peer.address(), Host: l.host, Process: process.String(),
	}
}

// couldLead reports whether a process holds the token, or is ready to claim it.
func (s Status) couldLead() bool {
	switch s.Phase {
	case ReadyToPromote, Promoting, Leading, HandingOver, Unconfirmed:
		return true
	}
	return false
}

// differs reports whether m says anything else than was written.
func (m Member) differs(written Member) bool {
	written.Seq, written.At, written.Revision = m.Seq, m.At, m.Revision
	same := m.Token == nil && written.Token == nil || m.Token != nil && written.Token != nil && *m.Token == *written.Token
	m.Token, written.Token = nil, nil
	return !same || m != written
}

// lease is the member's lease, as far as a note can be believed.
func (m Member) lease() time.Duration {
	const most = time.Hour
	d := time.Duration(min(max(m.Lease, 0), most.Seconds()) * float64(time.Second))
	return max(d, minLease)
}

// Unheard reports whether the member's newest note is more than three of its leases
// old at now. Clocks of two hosts differ: a process that goes on running sees
// whether Seq grows instead.
func (m Member) Unheard(now time.Time) bool { return now.Sub(m.At) > unheard*m.lease() }

// cut returns at most n bytes of text, as UTF-8.
func cut(text string, n int) string {
	const more = "…"
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	n -= len(more)
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + more
}

// A MemberList is what the board says of the processes of a service.
type MemberList struct {
	Members []Member // that were heard within three leases: the highest generation first, then by name
	Unheard []Member // that were not, by this clock; the holder removes their notes
	Ended   []Member // whose process has ended, as the kernel of this host says; likewise
	More    bool     // there are more notes than were read
	Broken  int      // notes that are none of a member
}

// ReadMembers returns the processes of the service, by the notes that they keep on
// the board: [MaxMembers] at most. It writes nothing. Whether a member was heard
// within three of its leases, it judges by the member's clock and this one's, which
// may differ.
func ReadMembers(ctx context.Context, store driver.Store, cfg catalog.Config) (MemberList, error) {
	notes, more, err := catalog.NewBoard(store, cfg).NotesAfter(ctx, memberPrefix, "", MaxMembers)
	if err != nil {
		return MemberList{}, fmt.Errorf("leader: the members can't be read: %w", err)
	}
	list, now := MemberList{More: more}, time.Now()
	for _, n := range notes {
		m, ok := parseMember(n)
		switch {
		case !ok:
			list.Broken++
		case hasEnded(m.Process):
			list.Ended = append(list.Ended, m)
		case m.Unheard(now):
			list.Unheard = append(list.Unheard, m)
		default:
			list.Members = append(list.Members, m)
		}
	}
	byGeneration := func(a, b Member) int {
		return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	}
	slices.SortFunc(list.Members, byGeneration)
	slices.SortFunc(list.Unheard, byGeneration)
	slices.SortFunc(list.Ended, byGeneration)
	return list, nil
}

// hasEnded reports whether the process that the text names is proven to have ended. Of
// one that is none, or of another host, nothing is known.
func hasEnded(process string) bool {
	p, err := identity.Parse(process)
	if err != nil {
		return false
	}
	proven, _ := p.Ended()
	return proven
}

// parseMember reads a note, whose text may be anybody's.
func parseMember(n driver.Note) (m Member, ok bool) {
	id, found := strings.CutPrefix(n.Key, memberPrefix)
	if !found || json.Unmarshal(n.Value, &m) != nil {
		return m, false
	}
	m.ID = cut(id, maxMemberName)
	m.Name, m.Build, m.Reason = cut(m.Name, maxMemberName), cut(m.Build, maxMemberName), cut(m.Reason, maxMemberReason)
	return m, true
}
