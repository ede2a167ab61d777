// Package storeurl opens the store that a URL names. It is the one place that
// knows every store; whoever needs one store only imports that driver alone.
//
//	sqlite:PATH                              one file, the path as it stands
//	sqlite:///abs/path                       the same
//	sqlite:PATH?filesystem=trusted           on a file system that is not known to be good
//	postgres://user@host:port/db?catalog=N   also postgresql://
//	etcd://host:port,host:port/prefix        etcds:// with TLS
//	etcd://host:port,host:port/prefix?hedge-after=100ms&dial-timeout=2s
//	                                         with timings of its own: see etcd.Open
//
// # Secrets
//
// A password in a URL is used and never shown: no error of this package holds
// any part of a URL beyond its scheme, and no error of a driver holds a
// password. A command line shows in process lists, so [CheckArgument] refuses
// a password there. It can come instead
//
//   - within the URL in the variable FENCEPOST_STORE;
//   - within the URL in the file that FENCEPOST_STORE_FILE names;
//   - for PostgreSQL from PGPASSWORD or the file that PGPASSFILE names;
//   - for etcd from FENCEPOST_ETCD_USERNAME and FENCEPOST_ETCD_PASSWORD.
//
// The package does not decide what is asked of a store: package catalog does.
package storeurl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
)

// The variables that name a store where no argument does.
const (
	EnvVar     = "FENCEPOST_STORE"      // the URL itself
	FileEnvVar = "FENCEPOST_STORE_FILE" // a file that holds the URL
)

// ErrMissing means that no store was named.
var ErrMissing = errors.New("no store given")

// Config says how a store is opened. The zero Config is usable.
type Config struct {
	// Getenv reads the environment; nil means os.Getenv. The variables of
	// libpq, such as PGPASSWORD, are read from the process's own environment
	// in any case.
	Getenv func(string) string

	// Lease is the time within which the process must be sure of its token, as
	// leader.Config.Lease. Time-outs of connections follow from it, unless the URL
	// says otherwise. Zero: the drivers' defaults.
	Lease time.Duration

	// Logger receives what no caller is told; nil discards it.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Open opens the store at url; where url is empty, the one that FENCEPOST_STORE
// or else FENCEPOST_STORE_FILE names. It contacts nobody. An error asks for
// halt with the code for configuration, 78; it wraps [ErrMissing] where no
// store is named at all. The caller closes the store.
func Open(ctx context.Context, url string, cfg Config) (driver.Store, error) {
	cfg = cfg.withDefaults()
	url, err := resolve(url, cfg.Getenv)
	if err != nil {
		return nil, exitcodes.WithCode(err, exitcodes.Config)
	}
	store, err := dispatch(ctx, url, cfg)
	if err != nil {
		return nil, exitcodes.WithCode(err, exitcodes.Config)
	}
	return store, nil
}

// resolve returns the URL to use.
func resolve(url string, getenv func(string) string) (string, error) {
	if url != "" {
		return url, nil
	}
	if url = getenv(EnvVar); url != "" {
		return url, nil
	}
	path := getenv(FileEnvVar)
	if path == "" {
		return "", fmt.Errorf("%w: name one with --store or in %s, such as %s", ErrMissing, EnvVar, forms)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", FileEnvVar, err)
	}
	if url = strings.TrimSpace(string(text)); url == "" {
		return "", fmt.Errorf("%w: the file %s, which %s names, is empty", ErrMissing, path, FileEnvVar)
	}
	return url, nil
}

const forms = "sqlite:PATH, postgres://user@host/database?catalog=NAME, etcd://host:2379/prefix or etcds://host:2379/prefix"

// dispatch calls the driver of url's scheme.
func dispatch(ctx context.Context, url string, cfg Config) (driver.Store, error) {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "sqlite":
		return openSQLite(url, cfg)
	case "postgres", "postgresql":
		return as(postgres.Open(ctx, url, postgres.Config{Logger: cfg.Logger}))
	case "etcd", "etcds":
		return as(etcd.Open(ctx, url, etcd.Config{Logger: cfg.Logger, Getenv: cfg.Getenv, Lease: cfg.Lease}))
	}
	return nil, unknownScheme("store", url, forms)
}

// as returns what a driver's Open returned, and never a nil pointer in the
// clothes of a store.
func as[S driver.Store](store S, err error) (driver.Store, error) {
	if err != nil {
		return nil, err
	}
	return store, nil
}

// trusted allows a file system that is not known to be good for SQLite.
const trusted = "filesystem=trusted"

func openSQLite(url string, cfg Config) (driver.Store, error) {
	path, trusted, err := sqlitePath(url, "store")
	if err != nil {
		return nil, err
	}
	return as(sqlite.Open(path, sqlite.Config{Logger: cfg.Logger, TrustFileSystem: trusted}))
}

// sqlitePath returns the path in a URL, which is that of a store or a register.
func sqlitePath(url, what string) (path string, trusts bool, err error) {
	path = strings.TrimPrefix(url, "sqlite:")
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		path = rest
		if !strings.HasPrefix(path, "/") {
			return "", false, fmt.Errorf("the URL of the %s names a host, and a SQLite file has none: want sqlite:PATH or sqlite:///abs/path", what)
		}
	}
	path, parameter, trusts := strings.Cut(path, "?")
	if trusts && parameter != trusted {
		return "", false, fmt.Errorf("the URL of a SQLite %s takes one parameter, and a path holds no ?: want sqlite:PATH or sqlite:PATH?%s", what, trusted)
	}
	if path == "" {
		return "", false, fmt.Errorf("the URL of the %s names no file: want sqlite:PATH", what)
	}
	return path, trusts, nil
}

// unknownScheme names the schemes there are. Of url it shows the scheme at
// most: the rest may be a secret.
func unknownScheme(what, url, forms string) error {
	scheme, _, found := strings.Cut(url, "://")
	if !found || strings.ContainsFunc(scheme, func(r rune) bool { return r < 'a' || r > 'z' }) {
		return fmt.Errorf("the %s is no URL of a known scheme: want %s", what, forms)
	}
	return fmt.Errorf("the %s's URL has the scheme %q: want %s", what, scheme, forms)
}
