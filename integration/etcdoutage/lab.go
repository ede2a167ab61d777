package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	members    = 3
	clientPort = 2379
	peerPort   = 2380
	patience   = time.Minute // for a server to start, and to catch up
)

// A lab is three etcd servers. If it is isolated, each has a namespace with two
// networks: one for clients, and one for its peers.
type lab struct {
	isolated bool
	dir      string
	binary   string
	servers  []*server
	watcher  *clientv3.Client // asks who leads
}

type server struct {
	number  int
	client  string // host:port
	peer    string
	cmd     *exec.Cmd
	cluster string
}

func newLab(binary string) (l *lab, err error) {
	l = &lab{isolated: os.Geteuid() == 0, binary: binary}
	if l.dir, err = os.MkdirTemp("", "etcdoutage"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := l.addresses(); err != nil {
		return nil, err
	}
	for _, s := range l.servers {
		if err := l.start(s); err != nil {
			return nil, err
		}
	}
	l.watcher, err = clientv3.New(clientv3.Config{Endpoints: l.endpoints(), Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	return l, l.settled(context.Background())
}

// addresses gives each server its addresses, and makes the networks.
func (l *lab) addresses() error {
	if l.isolated {
		for _, args := range []string{"link set lo up", "link add clients type bridge", "link add peers type bridge",
			"addr add 10.77.0.254/24 dev clients", "link set clients up", "link set peers up"} {
			if err := ip(strings.Fields(args)...); err != nil {
				return err
			}
		}
	}
	var peers []string
	for i := range members {
		s := &server{number: i, client: fmt.Sprintf("10.77.0.%d:%d", i+1, clientPort), peer: fmt.Sprintf("10.78.0.%d:%d", i+1, peerPort)}
		if !l.isolated {
			var err error
			if s.client, s.peer, err = freePorts(); err != nil {
				return err
			}
		}
		l.servers = append(l.servers, s)
		peers = append(peers, fmt.Sprintf("m%d=http://%s", i, s.peer))
	}
	for _, s := range l.servers {
		s.cluster = strings.Join(peers, ",")
	}
	return nil
}

func freePorts() (client, peer string, err error) {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// start starts a server, with the data that it had.
func (l *lab) start(s *server) error {
	log, err := os.OpenFile(filepath.Join(l.dir, fmt.Sprintf("m%d.log", s.number)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command("/proc/self/exe", l.binary,
		"--name", fmt.Sprintf("m%d", s.number), "--data-dir", filepath.Join(l.dir, fmt.Sprintf("m%d", s.number)), "--log-level", "warn",
		"--listen-client-urls", "http://"+s.client, "--advertise-client-urls", "http://"+s.client,
		"--listen-peer-urls", "http://"+s.peer, "--initial-advertise-peer-urls", "http://"+s.peer, "--initial-cluster", s.cluster)
	s.cmd.Env = append(os.Environ(), memberVar+"="+strconv.Itoa(s.number))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if l.isolated {
		s.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	if err := s.cmd.Start(); err != nil || !l.isolated {
		return err
	}
	return l.connect(s)
}

// link names this side of a server's connection to a network.
func (s *server) link(network string) string { return fmt.Sprintf("%.1s%d", network, s.number) }

// connect gives a server's namespace its two networks.
func (l *lab) connect(s *server) error {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	inside := func(args ...string) error {
		cmd := exec.Command("nsenter", append([]string{"-t", pid, "-n", "ip"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
		}
		return nil
	}
	for network, address := range map[string]string{"clients": s.client, "peers": s.peer} {
		host, _, _ := net.SplitHostPort(address)
		_ = ip("link", "del", s.link(network)) // of a server that was killed
		err := errors.Join(
			ip("link", "add", s.link(network), "type", "veth", "peer", "name", network, "netns", pid),
			ip("link", "set", s.link(network), "master", network, "up"),
			inside("addr", "add", host+"/24", "dev", network),
			inside("link", "set", network, "up"))
		if err != nil {
			return err
		}
	}
	return inside("link", "set", "lo", "up")
}

// becomeServer waits until both networks are there, and becomes etcd.
func becomeServer(args []string) {
	for end := time.Now().Add(patience); time.Now().Before(end) && os.Geteuid() == 0; time.Sleep(5 * time.Millisecond) {
		if lo, err := net.InterfaceByName("lo"); err == nil && lo.Flags&net.FlagUp != 0 {
			break // the last one that is brought up
		}
	}
	runtime.LockOSThread() // which the signal of a dead parent belongs to
	err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0)
	fmt.Fprintln(os.Stderr, "etcdoutage:", errors.Join(err, syscall.Exec(args[0], args, os.Environ())))
	os.Exit(1)
}

func (l *lab) endpoints() (all []string) {
	for _, s := range l.servers {
		all = append(all, s.client)
	}
	return all
}

// roles returns the leader and one follower.
func (l *lab) roles(ctx context.Context) (leader, follower *server, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		leader, follower = nil, nil
		for _, s := range l.servers {
			resp, err := l.status(ctx, s)
			switch {
			case err != nil:
			case resp.Leader == resp.Header.MemberId:
				leader = s
			default:
				follower = s
			}
		}
		if leader != nil && follower != nil {
			return leader, follower, nil
		}
	}
	return nil, nil, fmt.Errorf("no server leads: %w", ctx.Err())
}

func (l *lab) status(ctx context.Context, s *server) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return l.watcher.Status(ctx, s.client)
}

// settled waits until all servers follow one leader and have all that it has.
func (l *lab) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for calm := 0; calm < 10; time.Sleep(100 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the servers did not start, or did not catch up: %w", err)
		}
		leaders, applied, answers := map[uint64]bool{}, map[uint64]bool{}, 0
		for _, s := range l.servers {
			if resp, err := l.status(ctx, s); err == nil {
				leaders[resp.Leader], applied[resp.RaftAppliedIndex], answers = true, true, answers+1
			}
		}
		if calm++; answers < members || len(leaders) > 1 || leaders[0] || len(applied) > 1 {
			calm = 0
		}
	}
	return nil
}

func (l *lab) close() {
	if l.watcher != nil {
		_ = l.watcher.Close() // it was asked only
	}
	for _, s := range l.servers {
		if s.cmd != nil && s.cmd.Process != nil {
			_ = s.cmd.Process.Kill() // it may have ended
			_ = s.cmd.Wait()
		}
	}
	_ = os.RemoveAll(l.dir)
}
