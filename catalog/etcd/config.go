package etcd

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A Config says how a catalog in etcd is opened. The zero Config is usable.
type Config struct {
	// Client is used instead of an own one. Close leaves it open. It should
	// be made with
	//
	//   - MaxUnaryRetries 1, or else a write can be sent twice: that is
	//     harmless, and costs a further write, as the answer is then that of
	//     the second copy;
	//   - MaxCallRecvMsgSize 8 MiB, or else a log of records of up to 1 MiB
	//     comes in answers of up to 100 MiB, which a slow link does not bring
	//     before the call's time is over. Below 2 MiB not everything can be
	//     read;
	//   - MaxCallSendMsgSize 2 MiB, as it is by default.
	Client *clientv3.Client

	// TLS is for the scheme etcds; nil means the system's roots and no client
	// certificate.
	TLS *tls.Config

	// ClaimTTL is how long a claimer that died keeps commits waiting, in whole
	// seconds: 3 s by default, 2 s at least. A server whose election time-out
	// is long may grant a longer one.
	ClaimTTL time.Duration

	// Lease is the time within which the process must be sure of its token, such as
	// leader.Config.Lease: 7.5 s by default. The timings below follow from it where
	// they are not set.
	Lease time.Duration

	// HedgeAfter is how long a request may be without an answer before a copy of it
	// goes to another endpoint: a fixed time, or 0 for one that follows from the
	// answers so far, at least 50 ms and at most an eighth of Lease. Large requests
	// get more. A negative value sends no copy for want of an answer; an endpoint
	// that says it can't serve is still followed by the next. With one endpoint
	// nothing is sent twice.
	HedgeAfter time.Duration

	// KeepAlive is after how much silence a connection is pinged, and
	// KeepAliveTimeout how long the answer may take, and any data be
	// unacknowledged, before the connection is closed. By default 10 s, which is
	// the least that gRPC takes, and a third of Lease, at least 1 s. For an own
	// client.
	KeepAlive, KeepAliveTimeout time.Duration

	// DialTimeout bounds one attempt to connect, and to log in: by default two
	// thirds of Lease, at least 1 s. For an own client.
	DialTimeout time.Duration

	// Logger gets what is of interest and not an error; nil discards it.
	Logger *slog.Logger

	// Getenv reads the environment; nil means os.Getenv.
	Getenv func(string) string
}

const (
	defaultClaimTTL  = 3 * time.Second
	minClaimTTL      = 2 * time.Second
	defaultLease     = 7500 * time.Millisecond
	defaultKeepAlive = 10 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if c.ClaimTTL == 0 {
		c.ClaimTTL = defaultClaimTTL
	}
	c.Lease = cmp.Or(c.Lease, defaultLease)
	c.KeepAlive = cmp.Or(c.KeepAlive, defaultKeepAlive)
	c.KeepAliveTimeout = cmp.Or(c.KeepAliveTimeout, max(c.Lease/3, time.Second))
	c.DialTimeout = cmp.Or(c.DialTimeout, max(c.Lease*2/3, time.Second))
	return c
}

func (c Config) validate(secure bool) (mistakes []error) {
	if c.ClaimTTL < minClaimTTL || c.ClaimTTL%time.Second != 0 {
		mistakes = append(mistakes, fmt.Errorf("ClaimTTL is %v, want whole seconds, %v or more", c.ClaimTTL, minClaimTTL))
	}
	for name, d := range map[string]time.Duration{"Lease": c.Lease, "KeepAliveTimeout": c.KeepAliveTimeout, "DialTimeout": c.DialTimeout} {
		if d <= 0 {
			mistakes = append(mistakes, fmt.Errorf("%s is %v, want more than 0", name, d))
		}
	}
	if c.KeepAlive < defaultKeepAlive {
		mistakes = append(mistakes, fmt.Errorf("KeepAlive is %v, want at least %v: gRPC takes no less", c.KeepAlive, defaultKeepAlive))
	}
	if c.Client != nil {
		if _, guarded := c.Client.KV.(*GuardedKV); guarded {
			mistakes = append(mistakes, errors.New("Config.Client is guarded by a token: the catalog needs one whose KV is the client's own"))
		}
	}
	if c.TLS != nil && !secure && c.Client == nil {
		mistakes = append(mistakes, errors.New("Config.TLS is set, but the URL's scheme is not etcds"))
	}
	return mistakes
}

// A target is what a URL says.
type target struct {
	scheme         string
	hosts          []string
	prefix         string
	user, password string
	tls            *tls.Config // nil for plain text
}

// String returns the URL without user and password.
func (t target) String() string {
	return t.scheme + "://" + strings.Join(t.hosts, ",") + "/" + t.prefix
}

func (t target) endpoints() []string {
	scheme := "http://"
	if t.tls != nil {
		scheme = "https://"
	}
	all := make([]string, len(t.hosts))
	for i, host := range t.hosts {
		all[i] = scheme + host
	}
	return all
}

// parse reads a URL by hand: package net/url knows no list of hosts, and its
// errors quote the whole text, password included. A store's URL must name a
// prefix, a server's need not.
//
// The Config that it returns has the URL's parameters, and defaults.
func parse(text string, cfg Config, prefixed bool) (target, Config, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme != "etcd" && scheme != "etcds" {
		return target{}, cfg, errors.New("want a URL like etcd://host:2379/prefix, or etcds:// for TLS")
	}
	authority, prefix, _ := strings.Cut(rest, "/")
	if strings.Contains(prefix, "@") { // a raw / in a password: nothing after it can be shown
		return target{}, cfg, errors.New("there is an @ behind the first /: write / in a password as %2F, and @ in a prefix as %40")
	}
	prefix, query, _ := strings.Cut(prefix, "?")
	t := target{scheme: scheme}
	mistakes := cfg.read(query)
	cfg = cfg.withDefaults()
	mistakes = append(mistakes, cfg.validate(scheme == "etcds")...)
	add := func(err error) {
		if err != nil {
			mistakes = append(mistakes, err)
		}
	}
	add(t.readPrefix(prefix, prefixed))
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		add(t.readUser(authority[:at]))
		authority = authority[at+1:]
	} else {
		t.user, t.password = cfg.Getenv("FENCEPOST_ETCD_USERNAME"), cfg.Getenv("FENCEPOST_ETCD_PASSWORD")
	}
	if (t.user == "") != (t.password == "") {
		add(errors.New("user and password must be given together"))
	}
	add(t.readHosts(authority, cfg.Client != nil))
	if scheme == "etcds" {
		t.tls = secure(cfg.TLS)
	}
	return t, cfg, errors.Join(mistakes...)
}

func (t *target) readPrefix(text string, needed bool) error {
	if strings.Contains(text, "#") {
		return errors.New("the URL takes no fragment")
	}
	prefix, err := url.PathUnescape(strings.TrimSuffix(text, "/"))
	if err != nil {
		return errors.New("the prefix is not well escaped")
	}
	if prefix == "" && needed {
		return errors.New("the URL names no prefix, as in etcd://host:2379/prefix")
	}
	t.prefix = prefix
	return nil
}

func (t *target) readUser(text string) (err error) {
	user, password, _ := strings.Cut(text, ":")
	if t.user, err = url.PathUnescape(user); err != nil {
		return errors.New("the user is not well escaped")
	}
	if t.password, err = url.PathUnescape(password); err != nil {
		return errors.New("the password is not well escaped")
	}
	return nil
}

func (t *target) readHosts(text string, optional bool) error {
	if text == "" {
		if optional {
			return nil
		}
		return errors.New("the URL names no host, as in etcd://host:2379/prefix")
	}
	var mistakes []error
	t.hosts = strings.Split(text, ",")
	for _, hostport := range t.hosts {
		host, port, err := net.SplitHostPort(hostport)
		number, notNumber := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || notNumber != nil || number == 0 {
			mistakes = append(mistakes, fmt.Errorf("%q is not host:port", hostport))
		}
	}
	return errors.Join(mistakes...)
}

func secure(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return cfg.Clone()
}

// configError returns err as one that only a new configuration helps against.
func configError(err error) error {
	class := driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config}
	return &driver.Error{Class: class, Store: "etcd", Op: "open", Err: err}
}
