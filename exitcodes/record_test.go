package exitcodes

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func recorded(t *testing.T, err error) Record {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ending")
	require.NoError(t, WriteRecord(path, recordOf(err, decide(voices(err)))))
	r, readErr := ReadRecord(path)
	require.NoError(t, readErr)
	return r
}

func TestStacksHaveTheRoomThatTheRestOfARecordLeaves(t *testing.T) {
	t.Parallel()
	stacks := strings.Repeat("goroutine 7 [select]:\n\tmain.go:1 +0x1\n\n", 1000)
	for _, reason := range []string{"short", strings.Repeat("long ", 1000)} {
		line, err := Record{Reason: reason, Stacks: stacks, Fields: map[string]string{AdminField: "127.0.0.1:7001"}}.line()
		require.NoError(t, err)
		require.LessOrEqual(t, len(line), MaxRecordSize)
		var r Record
		require.NoError(t, json.Unmarshal(line, &r))
		require.True(t, strings.HasPrefix(reason, strings.TrimSuffix(r.Reason, "…")))
		require.Equal(t, "127.0.0.1:7001", r.Fields[AdminField])
		require.Empty(t, r.Fields["stacks"])
		require.True(t, strings.HasPrefix(stacks, strings.TrimSuffix(r.Stacks, "…")))
		if reason == "short" {
			require.Greater(t, len(r.Stacks), 2000)
		}
	}
}

func TestTheRecordListsEveryErrorTheExplainedAwayOnesToo(t *testing.T) {
	fenced := leads("generation 8 leads")
	lost := With(errors.New("connection lost"), Retry)
	r := recorded(t, With(errors.Join(lost, errors.Join(errors.New("plain"), fenced)), GracefulExit))

	require.Equal(t, "graceful exit", r.Disposition)
	require.Equal(t, Success, r.Code)
	require.True(t, r.Superseded)
	require.Equal(t, []RecordedError{
		{"retry", TempFail, "connection lost"},
		{"none", Failure, "plain"},
		{"graceful exit", Success, "generation 8 leads"},
	}, r.Errors)
	require.WithinDuration(t, time.Now(), r.At, time.Minute)
}

func TestTheRecordSaysThatAGracefulExitHadNoProof(t *testing.T) {
	r := recorded(t, errors.Join(errors.New("plain"), With(errors.New("tired"), GracefulExit)))
	require.Equal(t, "panic", r.Disposition)
	require.Equal(t, PanicExit, r.Code)
	require.False(t, r.Superseded)
	require.Equal(t, "plain\ntired; "+unproven, r.Reason)
	require.Equal(t, []RecordedError{{"none", Failure, "plain"}, {"panic", PanicExit, "tired; " + unproven}}, r.Errors)
}

func TestARecordOfAnySizeIsOneValidLineWithinTheBound(t *testing.T) {
	texts := map[string]string{
		"plain": "x", "quotes": `"`, "control": "\x01", "wide": "é", "wider": "🐘", "broken": "\xff", "lines": "\n",
	}
	for name, text := range texts {
		for _, length := range []int{1, 700, 5000} {
			for _, count := range []int{1, 40} {
				errs := make([]error, count)
				for i := range errs {
					errs[i] = With(errors.New(strings.Repeat(text, length)), Halt)
				}
				joined := errors.Join(errs...)
				r := recordOf(joined, decide(voices(joined)))
				r.Name = strings.Repeat(text, length)
				r.Fields = map[string]string{AdminField: "127.0.0.1:6878", "note": strings.Repeat(text, length)}

				line, err := r.line()
				require.NoError(t, err)
				require.LessOrEqual(t, len(line), MaxRecordSize, "%s, %d times, %d errors", name, length, count)
				require.Equal(t, 1, strings.Count(string(line), "\n"))
				var back Record
				require.NoError(t, json.Unmarshal(line, &back))
				require.Equal(t, Restart, back.Code)
				require.Equal(t, "halt", back.Disposition)
				require.Equal(t, count, len(back.Errors)+back.Omitted)
			}
		}
	}
}

func TestFieldsStandBesideTheRecordsOwnAndNeverReplaceThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ending")
	r := recordOf(errors.New("plain"), decide(voices(errors.New("plain"))))
	r.Fields = map[string]string{AdminField: "127.0.0.1:6878", "disposition": "graceful exit", "code": "0"}
	require.NoError(t, WriteRecord(path, r))

	var flat map[string]any
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &flat))
	require.Equal(t, "127.0.0.1:6878", flat["admin"])
	require.Equal(t, "none", flat["disposition"])

	back, err := ReadRecord(path)
	require.NoError(t, err)
	require.Equal(t, Failure, back.Code)
	require.Equal(t, map[string]string{AdminField: "127.0.0.1:6878"}, back.Fields)
}

func TestAReaderIgnoresFieldsOfALaterVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ending")
	require.NoError(t, os.WriteFile(path, []byte(`{"disposition":"halt","code":166,"later":{"a":[1]},"note":"n"}`), 0o600))
	r, err := ReadRecord(path)
	require.NoError(t, err)
	require.Equal(t, Record{Disposition: "halt", Code: Restart, Fields: map[string]string{"note": "n"}}, r)
}

func TestNoRecordAnEmptyOneAndABrokenOneAreErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ending")
	_, err := ReadRecord(path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = ReadRecord(path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, os.WriteFile(path, []byte(`{"disposition":"graceful ex`), 0o600))
	_, err = ReadRecord(path)
	require.Error(t, err)
}

func TestALongerRecordIsReplacedWholeAndNothingIsLeftBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ending")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("old", 5000)), 0o600))
	require.NoError(t, WriteRecord(path, Record{Disposition: "none", Reason: "new"}))
	r, err := ReadRecord(path)
	require.NoError(t, err)
	require.Equal(t, "new", r.Reason)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestALinkIsWrittenThroughAndStaysALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, WriteRecord(link, Record{Disposition: "none", Reason: "through"}))
	r, err := ReadRecord(target)
	require.NoError(t, err)
	require.Equal(t, "through", r.Reason)
}

func TestARecordWithoutAPlaceIsAnErrorThatNamesThePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "ending")
	require.ErrorContains(t, WriteRecord(path, Record{}), path)
}

func TestTheEnvironmentSaysWhereTheRecordGoes(t *testing.T) {
	require.Equal(t, "/some/where", RecordPath(func(name string) string {
		require.Equal(t, TerminationLogEnv, name)
		return "/some/where"
	}))
}

func TestManyLinesBecomeOne(t *testing.T) {
	require.Equal(t, "a; b; c", OneLine("a\n\n  b\r\nc\n"))
	require.Empty(t, OneLine("\n"))
}
