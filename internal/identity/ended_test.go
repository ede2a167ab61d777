package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const boot = "42f9f9e2-abb4-4e12-8baa-cd53c8f3c4de"

// observer is the process that looks in these tests, and holder the one that it
// looks for.
func observer() Process {
	return Process{boot: boot, host: hashHost("db1"), pids: 4026531836, times: 4026531834, pid: 900, start: 7000}
}

func holder() Process {
	p := observer()
	p.pid, p.start = 4882, 6853
	return p
}

// sees is what the observer sees: signals to the holder's pid end with signalled,
// in turn and the last one for ever, and its stat is s, or fails.
func sees(s stat, failed error, signalled ...error) view {
	return view{
		self: func() (Process, error) { return observer(), nil },
		signal: func(int) error {
			err := signalled[0]
			signalled = signalled[min(1, len(signalled)-1):]
			return err
		},
		stat: func(int) (stat, error) { return s, failed },
	}
}

func changed(change func(*Process)) Process {
	p := holder()
	change(&p)
	return p
}

func TestOnlyTheEndOfAProcessIsAProofOfItsEnd(t *testing.T) {
	t.Parallel()
	runs := stat{state: 'S', threads: 9, start: holder().start}
	with := func(state byte, threads int, start uint64) stat { return stat{state, threads, start} }
	for name, row := range map[string]struct {
		of     Process
		v      view
		proven bool
		why    string
	}{
		"it runs":                        {holder(), sees(runs, nil, nil), false, "process 4882 is there"},
		"it is stopped":                  {holder(), sees(with('T', 9, holder().start), nil, nil), false, "is there"},
		"it waits for a dead disk":       {holder(), sees(with('D', 1, holder().start), nil, nil), false, "is there"},
		"another user's":                 {holder(), sees(runs, nil, syscall.EPERM), false, "is there"},
		"hidepid=1":                      {holder(), sees(stat{}, fs.ErrPermission, syscall.EPERM), false, "can't be seen"},
		"hidepid=2":                      {holder(), sees(stat{}, fs.ErrNotExist, syscall.EPERM), false, "can't be seen"},
		"hidepid, and no kill":           {holder(), sees(stat{}, fs.ErrNotExist, syscall.ENOSYS), false, "can't be seen"},
		"no pid":                         {holder(), sees(stat{}, fs.ErrNotExist, errGone), true, "no process has its pid"},
		"no pid, and /proc is made up":   {holder(), sees(runs, nil, errGone), true, "no process has its pid"},
		"it ended while it was looked":   {holder(), sees(stat{}, fs.ErrNotExist, nil, errGone), true, "no process has its pid"},
		"its pid is another's":           {holder(), sees(with('S', 1, 6854), nil, nil), true, "belongs to another process"},
		"its pid is another user's":      {holder(), sees(with('S', 1, 6854), nil, syscall.EPERM), true, "belongs to another process"},
		"a zombie":                       {holder(), sees(with('Z', 1, holder().start), nil, nil), true, "only the exit status"},
		"a zombie that is being removed": {holder(), sees(with('X', 0, holder().start), nil, nil), true, "only the exit status"},
		"a main thread that ended alone": {holder(), sees(with('Z', 3, holder().start), nil, nil), false, "is there"},
		"it is me":                       {observer(), sees(runs, nil, errGone), false, "it is this process"},
		"I had its pid before":           {changed(func(p *Process) { p.pid = 900 }), sees(with('R', 9, 7000), nil, nil), true, "belongs to another"},
		"another boot":                   {changed(func(p *Process) { p.boot = strings.Replace(boot, "4", "5", 1) }), sees(stat{}, nil, errGone), false, "another host"},
		"another host name":              {changed(func(p *Process) { p.host = hashHost("db2") }), sees(stat{}, nil, errGone), false, "another host name"},
		"another pid namespace":          {changed(func(p *Process) { p.pids++ }), sees(stat{}, nil, errGone), false, "another pid namespace"},
		"another time namespace":         {changed(func(p *Process) { p.times++; p.start++ }), sees(runs, nil, nil), false, "another time namespace"},
		"another time namespace, no pid": {changed(func(p *Process) { p.times++ }), sees(stat{}, nil, errGone), true, "no process has its pid"},
		"nobody":                         {Process{}, sees(stat{}, nil, errGone), false, "another host"},
		"I don't know who I am": {holder(), view{
			self:   func() (Process, error) { return Process{}, errUnknown },
			signal: func(int) error { return errGone },
		}, false, errUnknown.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proven, why := row.v.ended(row.of)
			require.Equal(t, row.proven, proven, why)
			require.Contains(t, why, row.why)
		})
	}
}

func TestAWatchEndsWithAProofAndNotWithADescriptorThatFails(t *testing.T) {
	t.Parallel()
	runs := stat{state: 'S', threads: 9, start: holder().start}
	awaits := 0
	fails := func(context.Context, int) error { awaits++; return syscall.ENOSYS }
	why, err := sees(runs, nil, nil, nil, nil, errGone).watch(t.Context(), holder(), fails)
	require.NoError(t, err)
	require.Contains(t, why, "no process has its pid")
	require.Equal(t, 3, awaits)

	// A pid that can't be seen may still be the holder's, or be another process's.
	v := sees(stat{}, fs.ErrNotExist, syscall.EPERM)
	why, err = v.watch(t.Context(), holder(), func(context.Context, int) error { return nil })
	require.NoError(t, err)
	require.Equal(t, "process 4882 has ended", why)

	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	_, err = sees(runs, nil, nil).watch(ctx, holder(), func(context.Context, int) error { cancel(over); return over })
	require.ErrorIs(t, err, over)

	for name, p := range map[string]Process{"itself": observer(), "another namespace": changed(func(p *Process) { p.pids++ })} {
		_, err = sees(runs, nil, errGone).watch(t.Context(), p, fails)
		require.ErrorIs(t, err, ErrUnseen, name)
	}
}

func TestTheTextOfAnIdentityIsReadBackAndNothingElseIs(t *testing.T) {
	t.Parallel()
	p := holder()
	got, err := Parse(p.String())
	require.NoError(t, err)
	require.Equal(t, p, got)
	require.Less(t, len(changed(func(p *Process) {
		p.pids, p.times, p.pid, p.start = 1<<64-1, 1<<64-1, 1<<31-1, 1<<64-1
	}).String()), maxText)
	require.Empty(t, Process{}.String())

	text := p.String()
	for _, bad := range []string{
		"", ".....", text + ".1", text + " ", " " + text, "+" + text, strings.ToUpper(text), text[:len(text)-5],
		strings.Replace(text, boot, strings.ReplaceAll(boot, "-", ""), 1), strings.Replace(text, "4882", "0", 1),
		strings.Replace(text, "4882", "-4882", 1), strings.Replace(text, "4882", "04882", 1), strings.Replace(text, "4882", "4294971778", 1),
		strings.Replace(text, "4026531836", "0", 1), text + strings.Repeat("0", 200), "\x1b[2J" + text,
	} {
		_, err := Parse(bad)
		require.ErrorIs(t, err, ErrMalformed, "%q", bad)
		require.Less(t, len(err.Error()), 200)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(holder().String())
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := Parse(text); err == nil {
			require.Equal(t, text, p.String())
		}
	})
}

func TestACommandOfAnyNameIsReadFromProc(t *testing.T) {
	t.Parallel()
	const rest = " S 4880 4880 1597 0 -1 4194304 98 0 0 0 0 0 0 0 20 0 3 0 6853070 3133440 358 0"
	for _, name := range []string{"cat", "a b", ") Z 1 1 1", "(((", "", "\n"} {
		s, err := parseStat([]byte(fmt.Sprintf("4882 (%s)%s", name, rest)))
		require.NoError(t, err)
		require.Equal(t, stat{state: 'S', threads: 3, start: 6853070}, s)
	}
	for _, bad := range []string{"", "4882 (cat) S 1", strings.Replace(rest, "6853070", "-1", 1), strings.Replace(rest, "S", "SS", 1), strings.Repeat(")", 99)} {
		_, err := parseStat([]byte(bad))
		require.Error(t, err, bad)
	}
}

// The pace of looking is what a machine without descriptors of processes gets.
func TestALookIsRepeatedSoonerThanAnyLease(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, pace, 300*time.Millisecond/3)
}
