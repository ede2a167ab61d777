package etcd

import (
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

	// Logger gets what is of interest and not an error; nil discards it.
	Logger *slog.Logger

	// Getenv reads the environment; nil means os.Getenv.
	Getenv func(string) string
}

const (
	defaultClaimTTL = 3 * time.Second
	minClaimTTL     = 2 * time.Second
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
	return c
}

func (c Config) validate(secure bool) (mistakes []error) {
	if c.ClaimTTL < minClaimTTL || c.ClaimTTL%time.Second != 0 {
		mistakes = append(mistakes, fmt.Errorf("ClaimTTL is %v, want whole seconds, %v or more", c.ClaimTTL, minClaimTTL))
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
func parse(text string, cfg Config, prefixed bool) (target, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme != "etcd" && scheme != "etcds" {
		return target{}, errors.New("want a URL like etcd://host:2379/prefix, or etcds:// for TLS")
	}
	authority, prefix, _ := strings.Cut(rest, "/")
	if strings.Contains(prefix, "@") { // a raw / in a password: nothing after it can be shown
		return target{}, errors.New("there is an @ behind the first /: write / in a password as %2F, and @ in a prefix as %40")
	}
	t := target{scheme: scheme}
	mistakes := cfg.validate(scheme == "etcds")
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
	return t, errors.Join(mistakes...)
}

func (t *target) readPrefix(text string, needed bool) error {
	if strings.ContainsAny(text, "?#") {
		return errors.New("the URL takes no query and no fragment")
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
