package leader_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/identity"
	"github.com/fencepost/fencepost/leader"
)

// openLed starts a process that leads a catalog and listens nowhere.
func openLed(t *testing.T) (*killable, *sqlite.Store) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catalog.db")
	holder := begin(t, path)
	holder.leads()
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	require.NotEmpty(t, signOfLife(t, store).Said.Process)
	return holder, store
}

// patient is a process that nothing but a proof moves.
func patient() leader.Config {
	cfg := config(1)
	cfg.Lease, cfg.Poll = time.Hour, 10*time.Minute
	return cfg
}

func TestAStandbyOfTheSameHostIsToldOfADeathByTheKernel(t *testing.T) {
	t.Parallel()
	holder, store := openLed(t)
	standby := start(t, store, patient())
	standby.reached(t, leader.ReadyToPromote)
	require.NoError(t, holder.cmd.Process.Signal(syscall.SIGSTOP)) // which is no death
	require.Never(t, func() bool { return standby.Status().Phase != leader.ReadyToPromote }, 100*time.Millisecond, 10*time.Millisecond)
	require.NoError(t, holder.cmd.Process.Kill()) // and nobody waits for it
	standby.reached(t, leader.Leading)
	history := claims(t, store)
	require.Len(t, history, 2)
	require.Regexp(t, `the process of g1\.e1 is gone: .*process`, history[1].Reason)
	require.NoError(t, standby.end(t))
}

func TestAProcessThatStartsAfterwardsKnowsAtItsFirstLookThatTheHolderIsGone(t *testing.T) {
	t.Parallel()
	holder, store := openLed(t)
	holder.kill()
	second := start(t, store, patient())
	second.reached(t, leader.Leading)
	require.Contains(t, claims(t, store)[1].Reason, "no process has its pid")
	require.NoError(t, second.end(t))
}

func TestAPidThatAnotherProcessHasNowIsAProof(t *testing.T) {
	t.Parallel()
	_, store := openLed(t)
	post(t, store, func(b *leader.Beat) { b.Said.Process = b.Said.Process[:strings.LastIndex(b.Said.Process, ".")] + ".1" })
	second := start(t, store, patient())
	second.reached(t, leader.Leading)
	require.Contains(t, claims(t, store)[1].Reason, "belongs to another process now")
	require.NoError(t, second.end(t))
}

func TestASupervisorsWordOfAnEndIsAProof(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer store.Close()
	holder := start(t, store, patient()) // of which that word is false
	holder.reached(t, leader.Leading)
	second := begin(t, path, identity.EndedEnv+"="+signOfLife(t, store).Said.Process)
	second.leads()
	require.Contains(t, claims(t, store)[1].Reason, "the supervisor of this process waited for")
	require.ErrorIs(t, <-holder.ended, fence.ErrFenced)
}

func TestAProcessThatRunRestartsLeadsAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	run := begin(t, path, runVar+"=1")
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer store.Close()
	first := run.leads()
	signOfLife(t, store)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	second := run.leads()
	require.NotEqual(t, first, second)
	require.Contains(t, claims(t, store)[1].Reason, "the supervisor of this process waited for")
	require.NoError(t, syscall.Kill(run.cmd.Process.Pid, syscall.SIGTERM))
	require.NoError(t, run.cmd.Wait())
}

func TestAProcessThatMerelyCantBeSeenIsNotDead(t *testing.T) {
	t.Parallel()
	me, err := identity.Self()
	require.NoError(t, err)
	field := func(i int, value string) string {
		fields := strings.Split(me.String(), ".")
		fields[i] = value
		return strings.Join(fields, ".")
	}
	for name, process := range map[string]string{
		"another boot":          field(0, "00000000-0000-4000-8000-000000000000"),
		"another host name":     field(1, "00000000"),
		"another pid namespace": field(2, "1"),
		"this process":          me.String(),
		"of a later build":      "v2:" + me.String(),
		"malformed":             strings.Repeat("x", 1000),
		"unknown":               "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				holder := start(t, store.Open(), patient())
				holder.await(t, leader.Leading)
				post(t, store, func(b *leader.Beat) { b.Said.Process = process })
				standby := start(t, store.Open(), patient())
				standby.await(t, leader.ReadyToPromote)
				elapse(15 * time.Minute) // a look, and no heartbeat
				require.Equal(t, leader.ReadyToPromote, standby.Status().Phase, standby.Status().Reason)
				require.Len(t, claims(t, store), 1)
				require.NoError(t, standby.end(t))
				require.NoError(t, holder.end(t))
			})
		})
	}
}

func TestAProvenDeathIsWaitedForOnlyByPriority(t *testing.T) {
	t.Parallel()
	holder, store := openLed(t)
	cfg := patient()
	cfg.Poll, cfg.Priority, cfg.HandoverTimeout = 10*time.Millisecond, 9, time.Hour // ten minutes more than the other
	first := start(t, store, patient())
	first.reached(t, leader.ReadyToPromote)
	known := func() bool {
		list, err := leader.ReadMembers(t.Context(), store, catalog.Config{})
		return err == nil && len(list.Members) > 1 // the holder, and the first
	}
	require.Eventually(t, known, time.Minute, time.Millisecond)
	late := start(t, store, cfg)
	late.reached(t, leader.ReadyToPromote)
	holder.kill()
	first.reached(t, leader.Leading)
	require.Len(t, claims(t, store), 2)
	require.NoError(t, late.end(t))
	require.NoError(t, first.end(t))
}
