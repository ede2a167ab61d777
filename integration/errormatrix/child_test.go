package errormatrix

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
)

// childVar makes this program the child of a test: a process whose rights are
// less, and whose system calls may fail.
const childVar = "FENCEPOST_ERRORMATRIX_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		serve()
		return
	}
	m.Run()
}

// An order is one call that a child is to make of a store.
type order struct {
	Path   string
	Do     string // open, append, head or claim
	Record driver.Record
	Prior  []byte // the head to append to
}

// An answer is what became of it.
type answer struct {
	Failed  bool
	Family  string
	Code    string
	Name    string
	Text    string
	Outcome driver.Outcome
	Wrong   string // what does not agree with the table
}

// serve carries out orders until there are none. It does so on one thread:
// strace counts the calls of each thread alone, and which of them is to fail is
// said by its number.
func serve() {
	runtime.LockOSThread()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	stores := map[string]*sqlite.Store{}
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return
		}
		s := stores[o.Path]
		if s == nil || o.Do == "open" {
			if s != nil {
				_ = s.Close()
			}
			s, _ = sqlite.Open(o.Path, sqlite.Config{})
			stores[o.Path] = s
		}
		_ = out.Encode(told(o.carryOut(s)))
	}
}

func (o order) carryOut(s *sqlite.Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	switch o.Do {
	case "append":
		head, err := driver.UnmarshalHead(o.Prior)
		if err != nil {
			return err
		}
		return s.Append(ctx, head, o.Record)
	case "head":
		_, err := s.Head(ctx)
		return err
	case "claim":
		c, err := s.Claim(ctx)
		if err == nil {
			c.Abandon()
		}
		return err
	}
	return nil
}

func told(err error) answer {
	if err == nil {
		return answer{}
	}
	outcome := driver.OutcomeOf(err)
	m, wrong := judge(sqlite.Errors(), err, outcome == driver.Unknown)
	a := answer{Failed: true, Family: m.Family, Code: m.Code, Name: m.Entry.Name, Text: err.Error(), Outcome: outcome}
	if wrong != nil {
		a.Wrong = wrong.Error()
	}
	return a
}

// A child is a process that carries out orders.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

// program returns a copy of this program that any user can start.
func program(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "errormatrix-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755)) //nolint:gosec // that is what it is for
	b, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	path := filepath.Join(dir, "child")
	require.NoError(t, os.WriteFile(path, b, 0o755)) //nolint:gosec // as above
	return path
}

// start starts a child, as another user where uid is not zero.
func start(t *testing.T, program string, uid uint32) *child {
	t.Helper()
	cmd := exec.Command(program) //nolint:gosec // a copy of this one
	cmd.Env = append(os.Environ(), childVar+"=1")
	cmd.Stderr = os.Stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	})
	return &child{t: t, cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(bufio.NewReader(out))}
}

func (c *child) do(o order) (a answer) {
	c.t.Helper()
	require.NoError(c.t, c.in.Encode(o))
	require.NoError(c.t, c.out.Decode(&a))
	require.Empty(c.t, a.Wrong)
	return a
}

// append has the child commit, and notes the fate.
func (c *child) append(l *ledger, path string, head driver.Head, size int) answer {
	c.t.Helper()
	text, err := driver.MarshalHead(head)
	require.NoError(c.t, err)
	rec := drivertest.NextRecord(head, random(size))
	a := c.do(order{Path: path, Do: "append", Record: rec, Prior: text})
	err = nil
	if a.Failed {
		err = &driver.Error{Class: driver.Class{Outcome: a.Outcome}, Err: errors.New(a.Text)}
	}
	_ = l.note(rec, err)
	return a
}

// answered requires that a child met the entry with a code.
func (x *matrix) answered(t *testing.T, code string, a answer) {
	t.Helper()
	require.True(t, a.Failed, "%s did not come", code)
	require.Equal(t, code, a.Code, a.Text)
	x.saw(driver.Meaning{Family: a.Family, Code: a.Code, Entry: driver.Entry{Name: a.Name}}, met)
}
