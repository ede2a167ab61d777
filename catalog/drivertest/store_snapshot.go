package drivertest

import (
	"bytes"
	"context"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func snapshotRules() []rule {
	return []rule{
		{"snapshot-of-nothing", "Snapshot calls nobody where none was published, staged or not", snapshotOfNothing},
		{"snapshot-is-whole", "Snapshot gives the published one with its parts, in order and unchanged", snapshotIsWhole},
		{"snapshot-stops", "Snapshot stops at the first error of its function and returns that error as it is", snapshotStops},
		{"snapshot-is-the-readers", "a snapshot's part is its reader's to keep and to change", snapshotIsTheReaders},
		{"stage-is-invisible", "staged parts show in nothing that a reader can see", stageIsInvisible},
		{"stage-again", "the same part and the same snapshot may be sent again", stageAgain},
		{"stage-limit", "a part above MaxPart wraps ErrTooLarge and nothing is staged", stageLimit},
		{"publish-replaces", "a newer snapshot takes the place of an older one; an older one, or another of its revision, wraps ErrConflict", publishReplaces},
		{"publish-needs-its-parts", "a snapshot of which a part is missing wraps ErrCorrupt and is not published", publishNeedsItsParts},
		{"publish-needs-its-commit", "a snapshot of what the log does not have wraps ErrCorrupt and is not published", publishNeedsItsCommit},
		{"compaction-is-fenced", "Stage, Publish and Trim under an earlier claim wrap ErrConflict and write nothing", compactionIsFenced},
		{"trim-deletes", "Trim deletes the log below the snapshot; Log then wraps ErrCompacted, and all else stays", trimDeletes},
		{"trim-needs-a-snapshot", "Trim without a snapshot deletes no record", trimNeedsASnapshot},
		{"trim-clears-up", "Trim deletes the parts of every other snapshot, and the published one stays whole", trimClearsUp},
		{"trim-under-a-log", "a Log under way while Trim runs gives every record up to the end or up to ErrCompacted", trimUnderALog},
		{"trim-under-a-snapshot", "a Snapshot under way while another takes its place gives parts of one only, and all of them unless it fails", trimUnderASnapshot},
		{"compaction-lets-commits-pass", "commits and claims go on between the steps of a compaction", compactionLetsCommitsPass},
	}
}

// snapshotAt stages and publishes a snapshot of the log up to rec.
func (b *bench) snapshotAt(s driver.Store, by driver.Claim, rec driver.Record, parts ...[]byte) driver.Snapshot {
	b.Helper()
	snapshot := b.stage(s, by, rec, parts...)
	require.NoError(b, s.Publish(b.ctx, by, snapshot))
	return snapshot
}

// stage stages the parts of a snapshot of the log up to rec.
func (b *bench) stage(s driver.Store, by driver.Claim, rec driver.Record, parts ...[]byte) driver.Snapshot {
	b.Helper()
	snapshot := driver.Snapshot{ID: driver.NewID(), Revision: rec.Revision, Commit: rec.ID, Token: rec.Token, Parts: len(parts)}
	for n, part := range parts {
		require.NoError(b, s.Stage(b.ctx, by, snapshot.ID, n, part))
	}
	return snapshot
}

// trim calls Trim until there is no more to delete.
func (b *bench) trim(s driver.Store, by driver.Claim) {
	b.Helper()
	for more := true; more; {
		var err error
		more, err = s.Trim(b.ctx, by)
		require.NoError(b, err)
	}
}

// published is what a reader sees of the snapshot.
type published struct {
	driver.Snapshot
	parts [][]byte
}

func (b *bench) published(s driver.Store) (p published) {
	b.Helper()
	require.NoError(b, s.Snapshot(b.ctx, func(snapshot driver.Snapshot, part []byte) error {
		require.False(b, snapshot.IsZero(), "a snapshot that is none")
		if !p.IsZero() {
			require.Equal(b, p.Snapshot, snapshot, "one Snapshot tells of two")
		}
		p.Snapshot = snapshot
		p.parts = append(p.parts, part)
		return nil
	}))
	return p
}

// shows fails where the snapshot is not want, with those parts.
func (b *bench) shows(s driver.Store, want driver.Snapshot, parts ...[]byte) {
	b.Helper()
	got := b.published(s)
	require.Equal(b, want, got.Snapshot)
	require.Len(b, got.parts, len(parts))
	for n := range parts {
		require.True(b, bytes.Equal(parts[n], got.parts[n]), "part %d", n)
	}
}

func snapshotOfNothing(b *bench) {
	require.True(b, b.published(b.s).IsZero(), "on an empty catalog")
	head, records := b.fill(3)
	require.True(b, b.published(b.s).IsZero(), "on a catalog without one")
	b.stage(b.s, head.Claim, records[2], []byte("staged"))
	require.True(b, b.published(b.another()).IsZero(), "of which only parts are staged")
}

func snapshotIsWhole(b *bench) {
	head, records := b.fill(3)
	parts := [][]byte{pattern(driver.MaxPart), []byte("\x00\xff'\\\n"), {}}
	for n := range 12 { // in the order of numbers, not of digits
		parts = append(parts, fmt.Appendf(nil, "part %d", n))
	}
	b.shows(b.s, b.snapshotAt(b.s, head.Claim, records[2], parts...), parts...)
	empty := b.snapshotAt(b.s, head.Claim, records[3])
	b.shows(b.another(), empty, nil)
}

func snapshotStops(b *bench) {
	head, records := b.fill(1)
	b.snapshotAt(b.s, head.Claim, records[1], []byte("one"), []byte("two"))
	stop, calls := new(stopError), 0
	err := b.s.Snapshot(b.ctx, func(driver.Snapshot, []byte) error { calls++; return stop })
	require.Same(b, stop, err)
	require.Equal(b, 1, calls)
	require.Len(b, b.published(b.s).parts, 2, "Snapshot after one that was stopped")
}

func snapshotIsTheReaders(b *bench) {
	head, records := b.fill(1)
	sent := []byte("as it was sent")
	snapshot := b.snapshotAt(b.s, head.Claim, records[1], sent, []byte("second"))
	clear(sent)
	for _, part := range b.published(b.s).parts {
		clear(part)
	}
	b.shows(b.s, snapshot, []byte("as it was sent"), []byte("second"))
}

func stageIsInvisible(b *bench) {
	head, records := b.fill(3)
	first := b.snapshotAt(b.s, head.Claim, records[1], []byte("old"))
	before := b.picture()
	b.stage(b.s, head.Claim, records[3], []byte("new"), []byte("new"))
	b.unchanged(before, "Stage")
	b.shows(b.another(), first, []byte("old"))
	Append(b, b.s, head, []byte("goes on"))
}

func stageAgain(b *bench) {
	head, records := b.fill(1)
	snapshot := b.stage(b.s, head.Claim, records[1], []byte("zero"), []byte("one"))
	require.NoError(b, b.s.Stage(b.ctx, head.Claim, snapshot.ID, 0, []byte("zero")))
	require.NoError(b, b.s.Publish(b.ctx, head.Claim, snapshot))
	require.NoError(b, b.s.Publish(b.ctx, head.Claim, snapshot), "the second time")
	b.shows(b.s, snapshot, []byte("zero"), []byte("one"))
}

func stageLimit(b *bench) {
	head, records := b.fill(1)
	snapshot := b.stage(b.s, head.Claim, records[1])
	err := b.s.Stage(b.ctx, head.Claim, snapshot.ID, 0, pattern(driver.MaxPart+1))
	b.refused(err, driver.ErrTooLarge, "a part above the limit")
	snapshot.Parts = 1
	b.refused(b.s.Publish(b.ctx, head.Claim, snapshot), driver.ErrCorrupt, "Publish without the part that was refused")
}

func publishReplaces(b *bench) {
	head, records := b.fill(5)
	older := b.stage(b.s, head.Claim, records[2], []byte("older"))
	b.snapshotAt(b.s, head.Claim, records[1], []byte("first"))
	newer := b.snapshotAt(b.s, head.Claim, records[4], []byte("newer"))
	rival := b.stage(b.s, head.Claim, records[4], []byte("rival"))
	before := b.picture()
	b.conflict(b.s.Publish(b.ctx, head.Claim, rival), "Publish of another snapshot of the same revision")
	b.conflict(b.s.Publish(b.ctx, head.Claim, older), "Publish of an older snapshot")
	b.shows(b.another(), newer, []byte("newer"))
	b.trim(b.s, head.Claim)
	b.conflict(b.s.Publish(b.ctx, head.Claim, older), "Publish of an older snapshot, whose parts are gone")
	b.shows(b.another(), newer, []byte("newer"))
	SameLog(b, before.Log[newer.Revision-1:], ReadLog(b, b.s, newer.Revision-1))
}

func publishNeedsItsParts(b *bench) {
	head, records := b.fill(2)
	snapshot := b.stage(b.s, head.Claim, records[1], []byte("zero"))
	require.NoError(b, b.s.Stage(b.ctx, head.Claim, snapshot.ID, 2, []byte("two")))
	for _, parts := range []int{2, 3, 4} {
		snapshot.Parts = parts
		b.refused(b.s.Publish(b.ctx, head.Claim, snapshot), driver.ErrCorrupt, "Publish without a part")
		require.True(b, b.published(b.s).IsZero())
	}
	snapshot.ID, snapshot.Parts = driver.NewID(), 1
	b.refused(b.s.Publish(b.ctx, head.Claim, snapshot), driver.ErrCorrupt, "Publish with the parts of another")
	require.True(b, b.published(b.s).IsZero())
}

func publishNeedsItsCommit(b *bench) {
	head, records := b.fill(3)
	foreign := records[2]
	foreign.ID = driver.NewID()
	for what, rec := range map[string]driver.Record{
		"a commit that was never made":    foreign,
		"a commit above the head":         NextRecord(head, nil),
		"a commit at another's revision":  {Revision: records[2].Revision, ID: records[1].ID, Token: head.Claim.Token},
		"a claim at a commit's revision":  {Revision: records[2].Revision, ID: head.Claim.ID, Token: head.Claim.Token},
		"a commit, far above every other": {Revision: 1 << 40, ID: records[2].ID, Token: head.Claim.Token},
	} {
		snapshot := b.stage(b.s, head.Claim, rec, []byte("x"))
		b.refused(b.s.Publish(b.ctx, head.Claim, snapshot), driver.ErrCorrupt, "a snapshot of "+what)
		require.True(b, b.published(b.s).IsZero(), "a snapshot of "+what)
	}
}

func compactionIsFenced(b *bench) {
	old, records := b.fill(4)
	staged := b.stage(b.s, old.Claim, records[3], []byte("staged"))
	ready := b.stage(b.s, old.Claim, records[2], []byte("ready"))
	require.NoError(b, b.s.Publish(b.ctx, old.Claim, ready))
	never := Install(b, b.another(), 1).Claim // the same generation, so that only the claim differs
	never.ID = driver.NewID()
	before := b.picture()
	for what, by := range map[string]driver.Claim{"an earlier claim": old.Claim, "the newest token, of a claim that never was": never, "no claim": {}} {
		b.conflict(b.s.Stage(b.ctx, by, staged.ID, 1, []byte("zombie")), "Stage under "+what)
		b.conflict(b.s.Publish(b.ctx, by, staged), "Publish under "+what)
		_, err := b.s.Trim(b.ctx, by)
		b.conflict(err, "Trim under "+what)
	}
	b.unchanged(before, "the compaction of a fenced holder")
	b.shows(b.another(), ready, []byte("ready"))
}

// compacted returns the error of a Log that needs what was deleted.
func compacted(ctx context.Context, from interface {
	Log(context.Context, uint64, func(driver.Record) error) error
}, after uint64) error {
	return from.Log(ctx, after, func(driver.Record) error { return nil })
}

func trimDeletes(b *bench) {
	const commits, kept = 2500, 2345 // more than one Trim deletes
	head, records := b.fill(commits)
	history, board := claimTexts(b, ReadClaims(b, b.s, 0)), b.post("k", "v", 0)
	b.snapshotAt(b.s, head.Claim, records[kept-1], []byte("entries"))
	b.trim(b.s, head.Claim)
	for _, s := range []driver.Store{b.s, b.another()} {
		for _, after := range []uint64{0, 1, kept - 2} {
			b.refused(compacted(b.ctx, s, after), driver.ErrCompacted, "Log of what was deleted")
		}
		SameLog(b, records[kept-1:], ReadLog(b, s, kept-1))
		SameLog(b, records[kept:], ReadLog(b, s, kept))
		require.Empty(b, ReadLog(b, s, head.Revision))
		require.Equal(b, history, claimTexts(b, ReadClaims(b, s, 0)), "the history of claims")
		require.Equal(b, []driver.Note{board}, ReadNotes(b, s, ""))
		SameHead(b, head, ReadHead(b, s))
	}
	head = Append(b, b.s, head, []byte("goes on"))
	claiming := b.claim(b.another())
	SameHead(b, head, claiming.Head())
	b.refused(compacted(b.ctx, claiming, 0), driver.ErrCompacted, "Log of a claim")
	var tail []driver.Record
	require.NoError(b, claiming.Log(b.ctx, commits, collect(&tail)))
	require.Len(b, tail, 2)
	claim := NextClaim(b, head, 1)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	require.Len(b, ReadClaims(b, b.s, 0), 2)
}

func trimNeedsASnapshot(b *bench) {
	head, _ := b.fill(5)
	before := b.picture()
	b.trim(b.s, head.Claim)
	b.unchanged(before, "Trim")
}

func trimClearsUp(b *bench) {
	head, records := b.fill(9)
	orphan := b.stage(b.s, head.Claim, records[2], []byte("a"), []byte("b"))
	b.snapshotAt(b.s, head.Claim, records[3], []byte("first"))
	newest := b.snapshotAt(b.s, head.Claim, records[5], []byte("second"), []byte("half"))
	next := Install(b, b.another(), 1)
	b.trim(b.s, next.Claim)
	b.shows(b.another(), newest, []byte("second"), []byte("half"))
	orphan.Revision, orphan.Commit = records[7].Revision, records[7].ID
	b.refused(b.s.Publish(b.ctx, next.Claim, orphan), driver.ErrCorrupt, "Publish of parts that were cleared up")
	more, err := b.s.Trim(b.ctx, next.Claim)
	require.NoError(b, err)
	require.False(b, more, "after the last")
}

func compactionLetsCommitsPass(b *bench) {
	head, records := b.fill(3)
	snapshot := b.stage(b.s, head.Claim, records[2], []byte("one"))
	other := b.another()
	head = Append(b, other, head, []byte("after Stage"))
	require.NoError(b, b.s.Publish(b.ctx, head.Claim, snapshot))
	head = Append(b, other, head, []byte("after Publish"))
	b.trim(b.s, head.Claim)
	head = Append(b, other, head, []byte("after Trim"))
	require.Len(b, ReadLog(b, other, snapshot.Revision), 4)
	next := b.snapshotAt(b.s, head.Claim, driver.Record{Revision: head.Revision, ID: head.Commit, Token: head.Claim.Token}, []byte("two"))
	claiming := b.claim(other)
	claim := NextClaim(b, claiming.Head(), 1)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	_, err := b.s.Trim(b.ctx, head.Claim)
	b.conflict(err, "Trim after the claim")
	b.shows(b.another(), next, []byte("two"))
	b.trim(other, claim)
	b.refused(compacted(b.ctx, other, 0), driver.ErrCompacted, "Log after the next holder's Trim")
}

func trimUnderALog(b *bench) {
	head, records := b.fill(300)
	var got []driver.Record
	err := b.another().Log(b.ctx, 0, func(rec driver.Record) error {
		if got = append(got, rec); len(got) == 1 {
			b.snapshotAt(b.s, head.Claim, records[200], []byte("entries"))
			b.trim(b.s, head.Claim)
		}
		return nil
	})
	if err != nil {
		b.refused(err, driver.ErrCompacted, "Log under way")
		records = records[:len(got)]
	}
	SameLog(b, records, got)
}

func trimUnderASnapshot(b *bench) {
	head, records := b.fill(5)
	var older, newer, got [][]byte
	for n := range 5 {
		older, newer = append(older, pattern(1000+n)), append(newer, pattern(2000+n))
	}
	first := b.snapshotAt(b.s, head.Claim, records[2], older...)
	err := b.another().Snapshot(b.ctx, func(s driver.Snapshot, part []byte) error {
		require.Equal(b, first, s, "after %d parts", len(got))
		if got = append(got, part); len(got) == 1 {
			b.snapshotAt(b.s, head.Claim, records[4], newer...)
			b.trim(b.s, head.Claim)
		}
		return nil
	})
	if err != nil {
		b.classified(err, "snapshot")
		require.NotErrorIs(b, err, driver.ErrCorrupt)
		older = older[:len(got)]
	}
	require.Equal(b, older, got)
}
