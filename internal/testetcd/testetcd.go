// Package testetcd gives tests a real etcd server: the one that a whole test
// run shares, by [URL], or a private one that a test may stop, kill and fill,
// by [NewServer]. A test that gets none fails; it is never skipped.
package testetcd

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/internal/teststop"
)

// Env names the variable with the URL of the server that a test run shares.
const Env = "FENCEPOST_TEST_ETCD"

// FolderEnv names the variable with the folder in which private servers keep
// their data. Unset, it is that of temporary files.
const FolderEnv = "FENCEPOST_TEST_SERVERS"

const (
	remedy = "run make test, which starts an etcd server and sets " + Env
	prefix = "fencepost-test/"
)

// URL returns the URL of an empty catalog of the test's own on the shared
// server. What is beneath it is removed when the test ends.
func URL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Env)
	if server == "" {
		t.Fatalf("%s is not set: %s", Env, remedy)
	}
	client := Client(t, server)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
	defer cancel()
	path := prefix + crand.Text()
	if _, err := client.Get(ctx, path, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil {
		t.Fatalf("no etcd answers at %s: %v: %s", server, err, remedy)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		_, err := client.Delete(ctx, path+"/", clientv3.WithPrefix())
		require.NoError(t, err, "to remove %s", path)
	})
	return strings.TrimSuffix(server, "/") + "/" + path
}

// Client returns a client for the server of url, closed when the test ends.
func Client(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	_, rest, found := strings.Cut(url, "://")
	require.True(t, found, "%q is no URL like etcd://127.0.0.1:2379: %s", url, remedy)
	hosts, _, _ := strings.Cut(rest, "/")
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(hosts, ","), Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// Prefix returns the key prefix in url, without a slash at its end.
func Prefix(t testing.TB, url string) string {
	t.Helper()
	parts := strings.SplitN(url, "/", 4)
	require.Len(t, parts, 4, "%q has no prefix", url)
	return parts[3]
}

// Options say how a private server is started.
type Options struct {
	Quota int64  // size of the database in bytes; zero means etcd's default
	TLS   string // folder of server.pem, server-key.pem and ca.pem; empty means plain text

	name, cluster string // of a member; empty for a server by itself
}

// A Server is a private server. Its address stays the same when it is
// restarted.
type Server struct {
	t       testing.TB
	options Options
	dir     string
	url     string
}

// NewServer starts a server, which is stopped when the test ends.
func NewServer(t testing.TB, options Options) *Server {
	t.Helper()
	s := &Server{t: t, options: options, dir: folder(t)}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

// folder makes a folder for a server's data.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv(FolderEnv), "testetcd-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// NewCluster starts n servers that are the members of one cluster, and stops them
// when the test ends.
func NewCluster(t testing.TB, n int) []*Server {
	t.Helper()
	members, ports, peers := make([]*Server, n), freePorts(t, n), make([]string, n)
	for i := range members {
		members[i] = &Server{t: t, dir: folder(t), options: Options{name: "m" + strconv.Itoa(i)}}
		peers[i] = members[i].options.name + "=http://127.0.0.1:" + strconv.Itoa(ports[i]+1)
		require.NoError(t, os.WriteFile(filepath.Join(members[i].dir, "port"), []byte(strconv.Itoa(ports[i])), 0o600))
		t.Cleanup(members[i].Stop)
	}
	var starting sync.WaitGroup
	errs := make([]error, n)
	for i, m := range members {
		m.options.cluster = strings.Join(peers, ",")
		starting.Go(func() { m.url, errs[i] = m.run("start") })
	}
	starting.Wait()
	require.NoError(t, errors.Join(errs...))
	return members
}

// URLOf returns the URL of all members of a cluster, with a prefix that is fit for
// a catalog.
func URLOf(members []*Server) string {
	hosts := make([]string, len(members))
	for i, m := range members {
		hosts[i] = strings.TrimPrefix(m.url, "etcd://")
	}
	return "etcd://" + strings.Join(hosts, ",") + "/catalog"
}

// freePorts returns n ports, each the first of three that were free just now.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range 1000 {
		port := 10000 + 3*rand.IntN(1500) // below those that the scripts draw, and that clients get
		if len(ports) == n {
			break
		}
		if !slices.Contains(ports, port) && free(port, port+1, port+2) {
			ports = append(ports, port)
		}
	}
	require.Len(t, ports, n, "no free ports")
	return ports
}

func free(ports ...int) bool {
	for _, port := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		_ = l.Close() // it only listened
	}
	return true
}

// URL returns the server's URL with a prefix that is fit for a catalog.
func (s *Server) URL() string { return s.url + "/catalog" }

// Start starts a server that was stopped or killed, with the data it had, and
// returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.url = s.script("start")
}

// Stop ends the server in good order and returns when it has ended.
func (s *Server) Stop() {
	s.t.Helper()
	s.script("stop")
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	s.t.Helper()
	require.NoError(s.t, syscall.Kill(s.PID(), syscall.SIGKILL))
	s.Stop() // waits until it has ended
}

// Signal sends the server a signal. After SIGSTOP it stands still.
func (s *Server) Signal(signal syscall.Signal) {
	s.t.Helper()
	if signal == syscall.SIGSTOP {
		teststop.Stop(s.t, s.PID())
		return
	}
	require.NoError(s.t, syscall.Kill(s.PID(), signal))
}

// PID returns the number of the server's process.
func (s *Server) PID() int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	require.NoError(s.t, err, "the server does not run")
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(s.t, err)
	return pid
}

func (s *Server) script(verb string) string {
	s.t.Helper()
	out, err := s.run(verb)
	require.NoError(s.t, err)
	return out
}

func (s *Server) run(verb string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 5*time.Minute) // the first build is long
	defer cancel()
	cmd := exec.CommandContext(ctx, script(s.t), verb, s.dir)
	cmd.Env = append(os.Environ(), "FENCEPOST_ETCD_QUOTA="+strconv.FormatInt(s.options.Quota, 10), "FENCEPOST_ETCD_TLS="+s.options.TLS,
		"FENCEPOST_ETCD_NAME="+s.options.name, "FENCEPOST_ETCD_CLUSTER="+s.options.cluster)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("scripts/etcd.sh %s: %w\n%s", verb, err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// script returns the path of scripts/etcd.sh, going up from the folder of the
// test.
func script(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for dir != filepath.Dir(dir) {
		path := filepath.Join(dir, "scripts", "etcd.sh")
		if _, err := os.Stat(path); err == nil {
			return path
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("scripts/etcd.sh is not above the test's folder")
	return ""
}
