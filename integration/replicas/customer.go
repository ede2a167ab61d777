package replicas

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// A Customer writes in a loop, as a client that holds the list of a service's replicas.
// It sends a request to one replica, and to the next one if the connection is refused,
// or if the reply is READONLY: that replica does not lead. It writes one key, whose
// value counts upwards. So it can send a write again if the connection broke before the
// reply, or if the outcome is unknown.
type Customer struct {
	Key     string
	Timeout time.Duration // of one request, with all that it is sent to

	addresses []string
	at        int // of addresses
	conn      *client
	stop      chan struct{}
	done      sync.WaitGroup

	// What follows may be read after Stop has returned.
	Acked    int           // the last acknowledged value
	Broken   []string      // connections that broke before the reply
	Unknown  int           // replies that left open whether the write has landed
	Longest  time.Duration // of an answered request
	Failures []string      // requests that were answered by an error, or not in time
}

// NewCustomer starts writing.
func NewCustomer(key string, timeout time.Duration, addresses ...string) *Customer {
	c := &Customer{Key: key, Timeout: timeout, addresses: addresses, stop: make(chan struct{})}
	c.done.Go(c.run)
	return c
}

// Stop waits for the request that is under way, and ends the writing.
func (c *Customer) Stop() {
	close(c.stop)
	c.done.Wait()
}

func (c *Customer) run() {
	defer func() { c.conn.close() }()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		began := time.Now()
		if err := c.request(began.Add(c.Timeout), n); err != nil {
			c.Failures = append(c.Failures, fmt.Sprintf("%s: %s=%d: %v", time.Now().Format("15:04:05.000"), c.Key, n, err))
			continue
		}
		c.Acked, c.Longest = n, max(c.Longest, time.Since(began))
	}
}

// request sends one write until it is answered.
func (c *Customer) request(late time.Time, n int) error {
	last := map[string]string{} // by address
	for time.Now().Before(late) {
		address := c.addresses[c.at]
		reply, err := c.try(address, late, n)
		switch {
		case err == nil && reply == "+OK":
			return nil
		case strings.HasPrefix(reply, "-UNKNOWN "):
			c.Unknown++
		case err == nil && !strings.HasPrefix(reply, "-READONLY "):
			return fmt.Errorf("%s answered %s", address, reply)
		case errors.Is(err, errNoReply):
			c.Broken = append(c.Broken, fmt.Sprintf("%s: %s=%d: %s: %v", time.Now().Format("15:04:05.000"), c.Key, n, address, err))
		}
		if last[address] = reply; err != nil {
			last[address] = err.Error()
		}
		c.conn.close()
		c.conn = nil
		if c.at = (c.at + 1) % len(c.addresses); c.at == 0 {
			time.Sleep(beat)
		}
	}
	return fmt.Errorf("no answer within %v, and at last %v", c.Timeout, last)
}

func (c *Customer) try(address string, late time.Time, n int) (reply string, err error) {
	if c.conn != nil && c.conn.closed() {
		c.conn.close()
		c.conn = nil
	}
	if c.conn == nil {
		if c.conn, err = dial(address, time.Until(late)); err != nil {
			return "", err
		}
	}
	return c.conn.call(time.Until(late), "SET", c.Key, fmt.Sprint(n))
}

// Read returns what a server says is the value of a key.
func (s *Server) Read(key string) (string, error) {
	c, err := dial(s.Address, time.Second)
	if err != nil {
		return "", err
	}
	defer c.close()
	return c.call(time.Second, "GET", key)
}
