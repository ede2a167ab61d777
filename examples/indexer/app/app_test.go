package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/examples/indexer/registry"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/work"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") { // a command
		Main()
	}
	os.Exit(m.Run())
}

func noEnv(string) string { return "" }

func TestAWrongCommandLineAsksForItsCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code exitcodes.Code
		text string
	}{
		{nil, exitcodes.Usage, "is no command"},
		{[]string{"nope"}, exitcodes.Usage, `"nope" is no command`},
		{[]string{"serve", "-nope"}, exitcodes.Usage, "see indexer -h"},
		{[]string{"serve", "more"}, exitcodes.Usage, `"more" is no flag`},
		{[]string{"serve"}, exitcodes.Usage, "-index is missing"},
		{[]string{"serve", "-index", "i", "-generation", "x"}, exitcodes.Usage, "-generation"},
		{[]string{"serve", "-index", "i"}, exitcodes.Config, "FENCEPOST_GENERATION"},
		{[]string{"init", "-index", "i", "-store", "postgres://u:secret@h/d"}, exitcodes.Usage, "password"},
	} {
		_, _, err := parse(c.args, noEnv, io.Discard)
		require.ErrorContains(t, err, c.text)
		require.Equal(t, c.code, exitcodes.CodeOf(err), c.args)
		require.NotContains(t, err.Error(), "secret")
	}
	var out bytes.Buffer
	for _, args := range [][]string{{"-h"}, {"serve", "-h"}} {
		_, _, err := parse(args, noEnv, &out)
		require.ErrorIs(t, err, errAnswered)
	}
	require.Contains(t, out.String(), "indexer init  -index")
}

func TestEachProcessHasACheckoutOfItsOwn(t *testing.T) {
	t.Parallel()
	_, f, err := parse([]string{"serve", "-index", "/i.git", "-generation", "1", "-name", "a/../b c"}, noEnv, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "/i.git.checkout-a-..-b-c", f.checkout)
	_, f, err = parse([]string{"serve", "-index", "/i.git", "-generation", "1"}, noEnv, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "/i.git.checkout-127.0.0.1-8080", f.checkout)
}

func TestTheHookFindsItsStoreFromTheFolderOfTheIndex(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	require.NoError(t, err)
	for store, want := range map[string]string{
		"sqlite:it's.db?filesystem=trusted": ` -store 'sqlite:` + here + `/it'\''s.db?filesystem=trusted' "$@"`,
		"sqlite:/a/b.db":                    ` -store 'sqlite:/a/b.db' "$@"`,
		"postgres://u@h/db":                 ` -store 'postgres://u@h/db' "$@"`,
		"":                                  ` guard "$@"`,
	} {
		script, err := hookScript(flags{store: store})
		require.NoError(t, err)
		require.Contains(t, script, want)
	}
}

func TestAProcessWithoutGitEndsWithTheCodeForConfigurationAndSaysWhatToInstall(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"init", "serve"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], command, "-index", filepath.Join(t.TempDir(), "i"), "-store", "sqlite:"+filepath.Join(t.TempDir(), "db"), "-generation", "1", "-listen", "127.0.0.1:0")
		cmd.Env = []string{"PATH=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.EqualValues(t, exitcodes.Config, exit.ExitCode(), "%s", out)
		require.Contains(t, string(out), "apt install git")
	}
}

// newServer returns a server that leads, and whose jobs nobody runs.
func newServer(t *testing.T) *server {
	t.Helper()
	s, _ := newServerOn(t)
	return s
}

func newServerOn(t *testing.T) (*server, *memory.Store) {
	t.Helper()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1, Holder: fence.Holder{Address: "a:1"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	lead, err := leader.New(store, leader.Config{Catalog: catalog.Config{Generation: 1}})
	require.NoError(t, err)
	queue, err := work.New(c, work.Config{Kinds: registry.Kinds(c, nil)})
	require.NoError(t, err)
	s := &server{lead: lead}
	s.begin(&term{ctx: t.Context(), c: c, queue: queue})
	return s, store
}

func (s *server) ask(t *testing.T, method, path, body string, answer any) int {
	t.Helper()
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	if answer != nil {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), answer), "%s", w.Body)
	}
	return w.Code
}

func TestTheWebServerAnswersWithoutWaitingForTheIndex(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sum := strings.Repeat("0", 64)
	var yes Accepted
	require.Equal(t, 202, s.ask(t, "POST", "/publish", `{"name":"left-pad","version":"1.0.0","checksum":"`+sum+`"}`, &yes))
	require.Equal(t, "/publishes/"+yes.ID, yes.Status)
	var f registry.Fate
	require.Equal(t, 200, s.ask(t, "GET", yes.Status, "", &f))
	require.Equal(t, registry.Queued, f.Stage)
	require.Equal(t, 202, s.ask(t, "POST", "/yank", `{"id":"x","name":"left-pad","version":"1.0.0"}`, &yes))
	require.Equal(t, 202, s.ask(t, "POST", "/unyank", `{"op":"unyank","name":"left-pad","version":"1.0.0"}`, nil))
	require.Equal(t, 202, s.ask(t, "POST", "/resync", "", nil))
	require.Equal(t, 200, s.ask(t, "GET", "/packages/left-pad", "", nil))
	require.Equal(t, 200, s.ask(t, "GET", "/feed", "", nil))
	for _, c := range []struct {
		code         int
		method, path string
		body         string
	}{
		{400, "POST", "/publish", "nonsense"},
		{400, "POST", "/publish", `{} {}`},
		{400, "POST", "/publish", `{"name":"` + strings.Repeat("x", maxBody) + `"}`},
		{400, "POST", "/publish", `{"op":"yank","name":"left-pad","version":"1.0.0"}`},
		{409, "POST", "/publish", `{"name":"left-pad","version":"1.0.0","checksum":"` + sum + `"}`},
		{409, "POST", "/unyank", `{"id":"x","name":"left-pad","version":"1.0.0"}`},
		{404, "POST", "/yank", `{"name":"left-pad","version":"2.0.0"}`},
		{404, "GET", "/publishes/none", ""},
		{404, "GET", "/packages/none", ""},
		{405, "GET", "/publish", ""},
		{404, "GET", "/", ""},
	} {
		require.Equal(t, c.code, s.ask(t, c.method, c.path, c.body, nil), "%s %s %s", c.method, c.path, c.body)
	}
}

func TestAProcessThatDoesNotLeadAnswersNothingElse(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.begin(nil)
	for _, path := range []string{"/publish", "/yank", "/unyank", "/resync"} {
		var no Refused
		require.Equal(t, 503, s.ask(t, "POST", path, "{}", &no))
		require.Equal(t, "this process does not lead", no.Error)
	}
	for _, path := range []string{"/publishes/x", "/packages/x", "/feed", "/work"} {
		require.Equal(t, 503, s.ask(t, "GET", path, "", nil))
	}
}

func TestAChangeWhoseOutcomeIsNotKnownIsToBeSentAgainAndIsDoneOnce(t *testing.T) {
	t.Parallel()
	s, store := newServerOn(t)
	body := `{"id":"x","name":"a","version":"1","checksum":"` + strings.Repeat("0", 64) + `"}`
	gone, leave := context.WithCancel(t.Context())
	store.Inject(func(c memory.Call) memory.Fault { // the answer is lost, and so is that to the question about it
		if c.Method == "Append" {
			leave()
		}
		return memory.LoseAnswer
	})
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, httptest.NewRequestWithContext(gone, "POST", "/publish", strings.NewReader(body)))
	require.Equal(t, 503, w.Code)
	require.Contains(t, w.Body.String(), "send it again with this id")
	store.Inject(nil)
	require.Equal(t, 202, s.ask(t, "POST", "/publish", body, nil))
	var st work.Status
	require.NoError(t, s.term.c.View(func(r *catalog.Reader) (err error) {
		st, err = work.Read(r, s.term.c.Head(), time.Now())
		return err
	}))
	require.EqualValues(t, 2, st.Totals.Enqueued, "a sync and an announcement")
}
