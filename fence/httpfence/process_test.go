package httpfence_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
	"github.com/fencepost/fencepost/fence/internal/gatetest"
)

// The variables by which a child learns its part: a server's folder and address, or
// the URL to which an old holder writes.
const (
	folderVar  = "FENCEPOST_HTTPFENCE_FOLDER"
	addressVar = "FENCEPOST_HTTPFENCE_ADDRESS"
	urlVar     = "FENCEPOST_HTTPFENCE_URL"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(folderVar) != "":
		err = playServer(os.Getenv(folderVar), os.Getenv(addressVar))
	case os.Getenv(urlVar) != "":
		err = playHolder(os.Getenv(urlVar))
	default:
		goleak.VerifyTestMain(m)
		return
	}
	fmt.Println(err)
	os.Exit(1)
}

// playServer appends what is posted to the file rows, behind a gate whose catalog is
// the file head. It does not answer the request "hang".
func playServer(folder, address string) error {
	gate, err := fence.OpenGate(filepath.Join(folder, "registers"), fence.GateConfig{
		Newest: func(context.Context, string) (t fence.Token, by fence.Holder, err error) {
			text, err := os.ReadFile(filepath.Join(folder, "head"))
			if err == nil {
				t, err = fence.Parse(string(text))
			}
			return t, gatetest.Someone(), err
		},
	})
	if err != nil {
		return err
	}
	rows, err := os.OpenFile(filepath.Join(folder, "rows"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, httpfence.Middleware(gate, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("inside")
		row, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		under, _ := httpfence.Admitted(r.Context())
		if _, err := fmt.Fprintln(rows, under, string(row)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		if string(row) == "hang" {
			fmt.Println("written")
			select {}
		}
	})))
}

// playHolder writes under g7.e41: each line that it is given, the first one in two
// halves. It says what became of each.
func playHolder(url string) error {
	client := &http.Client{Transport: &httpfence.Transport{Token: func() fence.Token { return gatetest.Old }, Refusals: true}}
	post := func(body io.Reader) {
		resp, err := client.Post(url, "text/plain", body)
		if err == nil {
			_ = resp.Body.Close()
			fmt.Println(resp.Status)
			return
		}
		fmt.Println(errors.Is(err, fence.ErrFenced), err)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	first, rest := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(rest, lines.Text())
		lines.Scan()
		_, _ = io.WriteString(rest, lines.Text())
		_ = rest.Close()
	}()
	post(first)
	<-sent
	for lines.Scan() {
		post(strings.NewReader(lines.Text()))
	}
	return lines.Err()
}

// A child is a process that a test started.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Writer
	lines *bufio.Scanner
}

func start(t *testing.T, vars ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0])}
	c.cmd.Env = append(os.Environ(), vars...)
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdin, c.lines = stdin, bufio.NewScanner(stdout)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { c.signal(syscall.SIGKILL); _ = c.cmd.Wait() })
	return c
}

func (c *child) signal(s os.Signal) { _ = c.cmd.Process.Signal(s) }

func (c *child) says() string {
	c.t.Helper()
	require.True(c.t, c.lines.Scan(), "the child ended")
	return c.lines.Text()
}

func TestAStoppedHolderThatIsContinuedWritesNothingBehindItsSuccessorThoughTheGuardWasKilled(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	head := filepath.Join(folder, "head")
	require.NoError(t, os.WriteFile(head, []byte("g7.e41"), 0o600))
	server := start(t, folderVar+"="+folder, addressVar+"=127.0.0.1:0")
	address := server.says()
	blue := start(t, urlVar+"=http://"+address)
	_, err := io.WriteString(blue.stdin, "half\n")
	require.NoError(t, err)
	require.Equal(t, "inside", server.says())
	blue.signal(syscall.SIGSTOP) // in the middle of a request that was admitted

	require.NoError(t, os.WriteFile(head, []byte("g8.e42"), 0o600))
	base := &http.Transport{DisableKeepAlives: true}
	green := &http.Client{Transport: &httpfence.Transport{Base: base, Token: func() fence.Token { return gatetest.New }, Refusals: true}}
	post := func(row string) error {
		resp, err := green.Post("http://"+address, "text/plain", strings.NewReader(row))
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	require.NoError(t, post("newer"), "the stopped holder keeps nobody waiting")
	require.Equal(t, "inside", server.says())
	lost := make(chan error, 1)
	go func() { lost <- post("hang") }()
	require.Equal(t, "inside", server.says())
	require.Equal(t, "written", server.says())
	server.signal(syscall.SIGKILL) // between accepting and answering
	require.Error(t, <-lost)
	_ = server.cmd.Wait()

	require.NoError(t, os.Remove(head)) // the catalog is out of reach
	server = start(t, folderVar+"="+folder, addressVar+"="+address)
	require.Equal(t, address, server.says())
	blue.signal(syscall.SIGCONT)
	_, err = io.WriteString(blue.stdin, "rest\nstale\n")
	require.NoError(t, err)
	require.NotEqual(t, "200 OK", blue.says(), "it was cut off")
	refused := blue.says()
	require.True(t, strings.HasPrefix(refused, "true "), refused)
	require.Contains(t, refused, "refused by http main: held g7.e41, the newest is g8.e42 of db-2, at 10.0.0.2:8443")
	require.NoError(t, post("newest"))
	rows, err := os.ReadFile(filepath.Join(folder, "rows"))
	require.NoError(t, err)
	require.Equal(t, "g8.e42 newer\ng8.e42 hang\ng8.e42 newest\n", string(rows))
}
