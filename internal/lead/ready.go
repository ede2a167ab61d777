//go:build unix

package lead

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Ready says when a command is ready, by one way at most. The zero Ready is: once it
// was started.
type Ready struct {
	Notify  bool   // it says READY=1 at its NOTIFY_SOCKET
	URL     string // a GET is answered with a status from 200 to 299
	Address string // a connection to host:port is accepted
	Command string // for /bin/sh; it ends with 0
}

// The pace of questions, and how long each may take.
const (
	askAgain   = 50 * time.Millisecond
	askTimeout = 5 * time.Second
)

func (r Ready) validate() error {
	ways := 0
	for _, given := range []bool{r.Notify, r.URL != "", r.Address != "", r.Command != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("readiness is asked in more than one way: give one of --ready-notify, --ready-url, --ready-address and --ready-command")
	}
	if r.Address != "" {
		if host, port, err := net.SplitHostPort(r.Address); err != nil || host == "" || port == "" {
			return fmt.Errorf("--ready-address is %.64q, want one such as 127.0.0.1:8080", r.Address)
		}
	}
	if r.URL == "" {
		return nil
	}
	if u, err := url.Parse(r.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("--ready-url is no URL of http or https: want one such as http://127.0.0.1:8080/healthz")
	}
	return nil
}

// awaitReady returns once the command is ready; its error is that of ctx.
func (t *term) awaitReady(ctx context.Context) error {
	r := t.cfg.Ready
	switch {
	case r.Notify:
		select {
		case <-t.said:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case r.URL != "":
		return t.askUntilReady(ctx, func(ctx context.Context) error { return get(ctx, r.URL) })
	case r.Address != "":
		return t.askUntilReady(ctx, func(ctx context.Context) error { return dial(ctx, r.Address) })
	case r.Command != "":
		return t.askUntilReady(ctx, func(ctx context.Context) error { return t.shell(ctx, "ready", r.Command, t.env) })
	}
	return nil
}

func (t *term) askUntilReady(ctx context.Context, ask func(context.Context) error) error {
	pace := time.NewTicker(askAgain)
	defer pace.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, askTimeout)
		err := ask(bounded)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			t.notServing(fmt.Errorf("%w: %w", errNotReady, err))
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func dial(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func get(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	direct := &http.Transport{Proxy: nil, DisableKeepAlives: true} // a proxy is not the command
	resp, err := direct.RoundTrip(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // the status is the answer
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return errors.New(resp.Status)
	}
	return nil
}
