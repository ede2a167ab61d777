package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/leader"
)

// The goals of promotions under load: no request fails, and the longest pause of
// any client has this 95th percentile, in µs. A reply that takes longer than
// tooLate is a failure.
const (
	pauseGoalP95 = 100_000
	tooLate      = 2 * time.Second
)

// handovers promotes one kvserver after the other, real processes, while 64
// clients write to the one that leads. They reconnect where their connection is
// closed between two requests, and never send a request again.
func handovers(b *bench) error {
	dir, err := os.MkdirTemp("", "fencepost-bench-handover")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	programs, err := b.workshop.programs(b.ctx)
	if err != nil {
		return err
	}
	h := &handing{b: b, binary: programs.Server, dir: dir, url: b.backend.url(fresh("handover"))}
	defer h.killAll()
	blue, err := h.start(1)
	if err == nil {
		err = blue.until(in(leader.Leading))
	}
	var pauses []time.Duration
	for n := 0; n < b.handover && err == nil; n++ {
		blue, err = h.promote(blue, n+2, &pauses)
	}
	if err != nil {
		return err
	}
	failed := figure{Name: "requests failed at a promotion", Ratio: float64(h.failed), Ops: float64(h.answered), Note: h.firstFailure}.atMost(float64(h.failed), 0, "")
	failed.Note = strings.TrimSpace(fmt.Sprintf("%d promotions, %d answered %s", b.handover, h.answered, failed.Note))
	b.report(failed)
	b.report(distribution(figure{Name: "pause at a promotion"}, pauses).atMost(p95(pauses), pauseGoalP95, " µs at p95"))
	return nil
}

type handing struct {
	b            *bench
	binary, dir  string
	url          string
	all          []*kvserver
	mu           sync.Mutex
	answered     int
	failed       int
	firstFailure string
}

// A kvserver is one process.
type kvserver struct {
	cmd           *exec.Cmd
	listen, admin string
	generation    int
	ended         chan struct{}
	log           string
}

func (h *handing) start(generation int) (*kvserver, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	admin, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &kvserver{listen: listen, admin: admin, generation: generation, ended: make(chan struct{})}
	s.log = filepath.Join(h.dir, strconv.Itoa(generation)+".log")
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	s.cmd = exec.CommandContext(h.b.ctx, h.binary, "-generation", strconv.Itoa(generation), "-listen", listen, "-admin", admin)
	s.cmd.Env = append(os.Environ(), "FENCEPOST_STORE="+h.url)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	h.all = append(h.all, s)
	go func() {
		_ = s.cmd.Wait() // its status is looked at later
		close(s.ended)
	}()
	return s, nil
}

func (h *handing) killAll() {
	for _, s := range h.all {
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		<-s.ended
	}
}

// until waits for a state that the process says it is in.
func (s *kvserver) until(is func(leader.Status) bool) error {
	for late := time.Now().Add(30 * time.Second); time.Now().Before(late); time.Sleep(2 * time.Millisecond) {
		if status, err := s.status(); err == nil && is(status) {
			return nil
		}
	}
	text, _ := os.ReadFile(s.log)
	return fmt.Errorf("generation %d is not where it should be: %s", s.generation, text)
}

func (s *kvserver) status() (status leader.Status, err error) {
	resp, err := http.Get("http://" + s.admin + "/api/leader/status")
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	return status, json.NewDecoder(resp.Body).Decode(&status)
}

// settle is for how long the clients write before and behind a promotion.
const settle = 300 * time.Millisecond

// promote has the next generation take over under load, and returns it.
func (h *handing) promote(blue *kvserver, generation int, pauses *[]time.Duration) (*kvserver, error) {
	green, err := h.start(generation)
	if err != nil {
		return nil, err
	}
	if err := green.until(in(leader.ReadyToPromote)); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	longest := make([]time.Duration, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { longest[w] = h.write(blue.listen, w, stop) })
	}
	time.Sleep(settle)
	err = post("http://"+green.admin+"/api/leader/promote", fmt.Sprintf(`{"generation":%d}`, generation))
	if err == nil {
		err = green.until(in(leader.Leading))
	}
	time.Sleep(settle)
	close(stop)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	*pauses = append(*pauses, slices.Max(longest))
	select {
	case <-blue.ended:
	case <-time.After(30 * time.Second):
		return nil, fmt.Errorf("generation %d has not ended", blue.generation)
	}
	if code := blue.cmd.ProcessState.ExitCode(); code != int(exitcodes.Success) {
		return nil, fmt.Errorf("generation %d ended with %d", blue.generation, code)
	}
	return green, nil
}

// write sends one request after the other until it is told to stop, and returns
// the longest time that one of them took.
func (h *handing) write(address string, worker int, stop <-chan struct{}) (longest time.Duration) {
	var conn *plainClient
	defer func() { conn.close() }()
	for {
		select {
		case <-stop:
			return longest
		default:
		}
		began := time.Now()
		if conn == nil {
			var err error
			if conn, err = dialPlain(address); err != nil {
				h.count(err)
				return longest
			}
		}
		err := conn.set(worker, h.b.next())
		longest = max(longest, time.Since(began))
		if errors.Is(err, errClosedBetween) {
			conn.close()
			conn = nil
			continue
		}
		h.count(err)
		if err != nil {
			conn.close()
			conn = nil
		}
	}
}

func (h *handing) count(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.answered++
		return
	}
	if h.failed++; h.firstFailure == "" {
		h.firstFailure = "first failure: " + err.Error()
	}
}

// errClosedBetween means that the connection was closed before a request was
// sent on it.
var errClosedBetween = errors.New("closed between two requests")

// A plainClient speaks just enough of the Redis protocol.
type plainClient struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialPlain(address string) (*plainClient, error) {
	conn, err := net.DialTimeout("tcp", address, tooLate)
	if err != nil {
		return nil, err
	}
	return &plainClient{conn, bufio.NewReader(conn)}, nil
}

func (c *plainClient) close() {
	if c != nil {
		_ = c.conn.Close()
	}
}

// set writes one value and waits for its reply.
func (c *plainClient) set(worker int, value []byte) error {
	if c.closed() {
		return errClosedBetween
	}
	if err := c.conn.SetDeadline(time.Now().Add(tooLate)); err != nil {
		return err
	}
	k := key(worker)
	if _, err := fmt.Fprintf(c.conn, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(k), k, len(value), value); err != nil {
		return err
	}
	line, err := c.in.ReadString('\n')
	if err == nil && line != "+OK\r\n" {
		err = errors.New(strings.TrimSpace(line))
	}
	return err
}

// closed reports whether the server has closed the connection, without waiting.
func (c *plainClient) closed() bool {
	raw, err := c.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN)
		return true
	})
	return gone || err != nil
}
