package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/work"
)

// alertSinks are the receivers of alerts.
type alertSinks struct {
	commands []string
	webhook  string
	timeout  time.Duration // of each
}

// check refuses a webhook that others could read on the way.
func (s alertSinks) check() error {
	if s.timeout <= 0 {
		return fmt.Errorf("--notify-timeout is %v, want more than 0", s.timeout)
	}
	for _, c := range s.commands {
		if strings.TrimSpace(c) == "" {
			return errors.New("--notify names no command")
		}
	}
	if s.webhook == "" {
		return nil
	}
	u, err := url.Parse(s.webhook)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return errors.New("--webhook, or " + webhookEnv + ", is no URL: want https://HOST/PATH")
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return errors.New("--webhook, or " + webhookEnv + ", is neither https nor http on loopback")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tell sends the alerts to all sinks at the same time. It returns one error for each
// sink that did not receive everything.
func (s alertSinks) tell(ctx context.Context, env Env, c workChecked) (failed []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := func(tell func(context.Context) error) {
		wg.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, s.timeout)
			defer cancel()
			if err := tell(bounded); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	for _, command := range s.commands {
		start(func(ctx context.Context) error { return notifyAll(ctx, env, command, c) })
	}
	if s.webhook != "" {
		start(func(ctx context.Context) error { return postAlerts(ctx, s.webhook, c) })
	}
	wg.Wait()
	return failed
}

// notifiers is how many calls of one command run at a time.
const notifiers = 4

// notifyAll runs a command for each alert, and counts the calls that failed.
func notifyAll(ctx context.Context, env Env, command string, c workChecked) error {
	alerts := make(chan work.Alert)
	errs := make(chan error, len(c.Alerts))
	var wg sync.WaitGroup
	for range min(notifiers, len(c.Alerts)) {
		wg.Go(func() {
			for a := range alerts {
				errs <- notify(ctx, env, command, c.Store, a)
			}
		})
	}
	for _, a := range firingFirst(c.Alerts) {
		alerts <- a
	}
	close(alerts)
	wg.Wait()
	close(errs)
	var first error
	n := 0
	for err := range errs {
		if err != nil {
			n++
			if first == nil {
				first = err
			}
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("--notify %q failed for %d of %d alerts: %w", clipped(command), n, len(c.Alerts), first)
}

var errNotifyTime = errors.New("the time was over: raise --notify-timeout, or use --webhook, which tells all alerts at once")

// notify runs a command for one alert, in a process group that ends with the time.
func notify(ctx context.Context, env Env, command, store string, a work.Alert) error {
	if ctx.Err() != nil {
		return errNotifyTime
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	since := ""
	if !a.Since.IsZero() {
		since = a.Since.UTC().Format(time.RFC3339)
	}
	cmd.Env = process.With(os.Environ(), map[string]string{
		"FENCEPOST_ALERT_KEY": a.Key, "FENCEPOST_ALERT_STATE": a.State(), "FENCEPOST_ALERT_SUMMARY": a.Summary,
		"FENCEPOST_ALERT_REMEDY": a.Remedy, "FENCEPOST_ALERT_SINCE": since, "FENCEPOST_ALERT_STORE": store,
	})
	if out, ok := env.Stderr.(*os.File); ok { // standard output is the answer's
		cmd.Stdout, cmd.Stderr = out, out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errNotifyTime
		}
		return fmt.Errorf("%s: %w", a.Key, err)
	}
	return nil
}

// postAlerts posts all alerts. No error shows the URL, which may be a secret.
func postAlerts(ctx context.Context, webhook string, c workChecked) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, webhook, bytes.NewReader(body))
	if err != nil {
		return errors.New("--webhook: not a URL that can be called")
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	var called *url.Error
	if errors.As(err, &called) {
		err = called.Err
	}
	if err != nil {
		return fmt.Errorf("--webhook: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("--webhook: answered %d, want 200 to 299", resp.StatusCode)
	}
	return nil
}
