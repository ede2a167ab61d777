// Package shortener guards an application of somebody else's by the lines that
// docs/guards.md shows: examples/url_shortener of pgx.
package shortener_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

const (
	ellipsis = "…"

	soon  = time.Minute
	stale = "http://stale.example"
	newer = "http://newer.example"
)

// TestAStoppedHolderChangesNothingByTheLinesThatThePageShows stops a holder with two
// requests under way, one whose body has come by half and one that waits for a row, has
// a higher generation take over and write both rows, and continues it.
func TestAStoppedHolderChangesNothingByTheLinesThatThePageShows(t *testing.T) {
	page := diffs(t)
	require.Len(t, page, 2)
	for name, way := range map[string]struct {
		diffs   []string
		install bool
		status  int
	}{
		"no guard":        {nil, false, http.StatusOK},
		"by the database": {page[:1], true, http.StatusInternalServerError},
		"by the client":   {page[1:], false, http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zombie(t, build(t, way.diffs), way.install, way.status)
		})
	}
}

func TestTheGuardsOfThePageTakeTenLinesAtMost(t *testing.T) {
	text := section(t)
	var all [2]int
	for i, diff := range diffs(t) {
		added, removed := strings.Count("\n"+diff, "\n+"), strings.Count("\n"+diff, "\n-")
		require.Positive(t, added)
		require.Contains(t, text, []string{fmt.Sprintf("%d insertion.", added), fmt.Sprintf("%d insertions, %d deletions", added, removed)}[i])
		all[0] += added
		all[1] += removed
	}
	require.LessOrEqual(t, all[0]+all[1], 10)
	require.Contains(t, text, fmt.Sprintf("By both: %d and %d.", all[0], all[1]))
}

func zombie(t *testing.T, binary string, install bool, want int) {
	dsn := testpg.With(t, testpg.URL(t), func(u *url.URL) {
		q := u.Query()
		q.Del("catalog")
		u.RawQuery = q.Encode()
	})
	schema, err := os.ReadFile(filepath.Join(original(t), "structure.sql"))
	require.NoError(t, err)
	testpg.Exec(t, dsn, string(schema), `insert into shortened_urls values ('/row', 'http://first.example')`)
	first := start(t, binary, dsn, 1)
	if install {
		store, err := postgres.Open(t.Context(), dsn, postgres.Config{})
		require.NoError(t, err)
		require.NoError(t, store.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"shortened_urls"}}))
		require.NoError(t, store.Close())
	}
	require.Equal(t, http.StatusOK, put(t, first.addr, "/half", "http://first.example").finish(t))

	lock := testpg.Connect(t, dsn)
	_, err = lock.Exec(t.Context(), `begin; select from shortened_urls where id = '/row' for update`)
	require.NoError(t, err)
	half, waits := put(t, first.addr, "/half", stale), put(t, first.addr, "/row", stale)
	waits.send(t)
	watch := testpg.Connect(t, dsn)
	require.Eventually(t, func() bool {
		var waiting bool
		err := watch.QueryRow(t.Context(), `select exists (select from pg_stat_activity where wait_event_type = 'Lock'
			and datname = current_database() and query like 'insert into shortened_urls%')`).Scan(&waiting)
		return err == nil && waiting
	}, soon, 10*time.Millisecond)
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGSTOP))

	second := start(t, binary, dsn, 2)
	require.Equal(t, http.StatusOK, put(t, second.addr, "/half", newer).finish(t))
	_, err = lock.Exec(t.Context(), `rollback`)
	require.NoError(t, err)
	if want != http.StatusOK { // else the stale write is the newest
		require.Equal(t, http.StatusOK, put(t, second.addr, "/row", newer).finish(t))
	}
	half.send(t)
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGCONT))
	require.Equal(t, want, half.status(t))
	require.Equal(t, want, waits.status(t))
	require.NoError(t, first.cmd.Wait(), "superseded")

	var rows int
	require.NoError(t, watch.QueryRow(t.Context(), `select count(*) from shortened_urls where url = $1`, stale).Scan(&rows))
	require.Equal(t, want == http.StatusOK, rows == 2, rows)
	require.Equal(t, want != http.StatusOK, rows == 0, rows)
	require.Equal(t, http.StatusOK, put(t, second.addr, "/half", newer).finish(t), "the second one goes on")
}

// A process is one of the application's.
type process struct {
	cmd  *exec.Cmd
	addr string
}

// start returns once the process serves.
func start(t *testing.T, binary, dsn string, generation int) process {
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+dsn, fmt.Sprintf("FENCEPOST_GENERATION=%d", generation))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return process{cmd, strings.TrimSpace(line)}
}

// A request is a PUT whose body has come by half.
type request struct {
	conn net.Conn
	rest string
}

func put(t *testing.T, addr, path, body string) request {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	_, err = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body[:3])
	require.NoError(t, err)
	return request{conn, body[3:]}
}

func (r request) send(t *testing.T) {
	_, err := r.conn.Write([]byte(r.rest))
	require.NoError(t, err)
}

func (r request) status(t *testing.T) int {
	answer, err := http.ReadResponse(bufio.NewReader(r.conn), nil)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

func (r request) finish(t *testing.T) int {
	r.send(t)
	return r.status(t)
}

// build applies the diffs to the application, as a holder, and returns its binary.
func build(t *testing.T, diffs []string) string {
	dir, root := t.TempDir(), root(t)
	source := holder(t)
	for _, diff := range diffs {
		source = apply(t, source, diff)
	}
	file, overlay, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "shortener")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	places, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "cmd", "shortener", "main.go"): file}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, places, 0o600))
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", binary, "./cmd/shortener")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// holder is the application as a single writer that holds a token.
func holder(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(original(t), "main.go"))
	require.NoError(t, err)
	handlers, _, found := strings.Cut(string(text), "func main() {")
	require.True(t, found)
	ours, err := os.ReadFile("holder.go.txt")
	require.NoError(t, err)
	return apply(t, handlers+string(ours), ` import (
 	"context"
+	"fmt"
 	"io"
-	"log"
+	"net"
 	"net/http"
 	"os"
+	"time"
 
+	"github.com/fencepost/fencepost/catalog"
+	"github.com/fencepost/fencepost/catalog/postgres"
+	"github.com/fencepost/fencepost/exitcodes"
+	"github.com/fencepost/fencepost/generation"
+	"github.com/fencepost/fencepost/leader"
 	"github.com/jackc/pgx/v5"
`)
}

// apply replaces, for each hunk of a diff, its older lines by its newer ones. Lines with
// an ellipsis are parts of lines, of which the first that is found is replaced.
func apply(t *testing.T, source, diff string) string {
	var older, newer strings.Builder
	flush := func() {
		if older.Len() == 0 && newer.Len() == 0 {
			return
		}
		if !strings.Contains(diff, ellipsis) {
			require.Equal(t, 1, strings.Count(source, older.String()), older.String())
		}
		require.Contains(t, source, older.String())
		source = strings.Replace(source, older.String(), newer.String(), 1)
		older.Reset()
		newer.Reset()
	}
	for line := range strings.Lines(diff) {
		if strings.Contains(line, ellipsis) {
			line = line[:1] + strings.TrimSpace(strings.ReplaceAll(line[1:], ellipsis, ""))
		}
		switch line[0] {
		case '@':
			flush()
		case '+':
			newer.WriteString(line[1:])
		case '-':
			older.WriteString(line[1:])
		default:
			older.WriteString(line[1:])
			newer.WriteString(line[1:])
		}
	}
	flush()
	return source
}

// diffs are those of the page.
func diffs(t *testing.T) (found []string) {
	for _, block := range strings.Split(section(t), "```diff\n")[1:] {
		diff, _, _ := strings.Cut(block, "```")
		found = append(found, diff)
	}
	return found
}

func section(t *testing.T) string {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "guards.md"))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(page), "\n## An application, guarded by this page\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

func root(t *testing.T) string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	return dir
}

// original is the folder of the application as its authors wrote it.
func original(t *testing.T) string {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/jackc/pgx/v5")
	cmd.Dir = root(t)
	dir, err := cmd.Output()
	require.NoError(t, err)
	return filepath.Join(strings.TrimSpace(string(dir)), "examples", "url_shortener")
}
