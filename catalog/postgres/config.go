package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config tells how a Store works. The zero Config means all defaults.
type Config struct {
	// Pool is used instead of an own pool. Its configuration
	// must have been passed to [Prepare]. Close leaves it open. What the DSN
	// says of the server is then not used, only its catalog. The pool is never
	// reset. A connection of it whose server turns out not to be the one to write
	// to is closed when the driver takes it.
	//
	// Reading the head and watching use connections of their own, made by the
	// pool's configuration, so that a starved pool does not cost the
	// leadership.
	Pool *pgxpool.Pool

	// Logger hears what is worth knowing but is no error, such as a pooler
	// found between here and the server, or that the server was promoted since
	// the newest claim. The default discards.
	Logger *slog.Logger

	// MaxConns bounds the own pool of a store, or of a [Server]. The default
	// is 4. Three more connections are for liveness: two read heads, one
	// watches.
	MaxConns int32

	// ClaimIdle bounds how long a claimer that has stopped keeps the head
	// locked, or the guards of a register or table that it raises or installs,
	// or what else a claim waits for: the server ends a transaction that has waited for its next statement for
	// so long, and the proof of a register after 1 s at most. The default is 10 s.
	ClaimIdle time.Duration

	// LookTimeout bounds how long the hosts of the DSN are looked at, all at the
	// same time, before each connection is made and before each claim. With one host
	// nothing is looked at. A host that has not answered by then counts as out of
	// reach. The default is 200 ms.
	LookTimeout time.Duration

	// GuardTimeout bounds how long a claim waits for guarded transactions. Then it
	// ends their sessions, by pg_terminate_backend, and logs each as a warning. If
	// the role lacks that right, the claim fails within its own bound and names them.
	// It must be shorter than the time for a claim, or the claim ends nobody.
	// The default is 1 s.
	GuardTimeout time.Duration
}

const (
	defaultMaxConns       = 4
	livenessConns         = 2
	defaultClaimIdle      = 10 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultLookTimeout    = 200 * time.Millisecond
	defaultGuardTimeout   = time.Second
)

func (c Config) withDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, defaultMaxConns)
	c.ClaimIdle = cmp.Or(c.ClaimIdle, defaultClaimIdle)
	c.LookTimeout = cmp.Or(c.LookTimeout, defaultLookTimeout)
	c.GuardTimeout = cmp.Or(c.GuardTimeout, defaultGuardTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var mistakes []error
	if c.MaxConns < 0 {
		mistakes = append(mistakes, fmt.Errorf("MaxConns is %d, want 1 or more, or 0 for the default of %d", c.MaxConns, defaultMaxConns))
	}
	if c.ClaimIdle < 0 || c.ClaimIdle > 0 && c.ClaimIdle < time.Millisecond {
		mistakes = append(mistakes, fmt.Errorf("ClaimIdle is %v, want 1ms or more, or 0 for the default of %v", c.ClaimIdle, defaultClaimIdle))
	}
	if c.LookTimeout < 0 {
		mistakes = append(mistakes, fmt.Errorf("LookTimeout is %v, want more than 0, or 0 for the default of %v", c.LookTimeout, defaultLookTimeout))
	}
	if c.GuardTimeout < 0 {
		mistakes = append(mistakes, fmt.Errorf("GuardTimeout is %v, want more than 0, or 0 for the default of %v", c.GuardTimeout, defaultGuardTimeout))
	}
	if c.Pool != nil && c.MaxConns != 0 {
		mistakes = append(mistakes, errors.New("MaxConns is set beside Pool, which has its own bound"))
	}
	return errors.Join(mistakes...)
}

const dsnForm = "want postgres://user@host:port/database?catalog=name"

// parseDSN splits a DSN into the catalog's name, if it has one, and what pgx
// makes of the rest. No error of it holds any part of a password: pgx's own text is used
// only where no secret is in it, and its error value, which keeps the whole
// DSN, never.
func parseDSN(dsn string) (catalog string, pool *pgxpool.Config, err error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return "", nil, errors.New("the DSN is no URL: " + dsnForm)
	}
	catalog, rest, catalogErr := cutCatalog(dsn)
	if hidesPassword(rest) {
		return "", nil, errHiddenPassword
	}
	pool, parseErr := pgxpool.ParseConfig(rest)
	if parseErr != nil {
		parseErr = redacted(parseErr, rest)
	}
	return catalog, pool, errors.Join(catalogErr, parseErr)
}

var errHiddenPassword = errors.New("the DSN has # or an @ behind its host: write /, # and ? in a password as %2F, %23 and %3F")

// hidesPassword reports whether a password may stand where none is looked for,
// since a character in it ends the host early.
func hidesPassword(dsn string) bool {
	u, err := url.Parse(dsn)
	if err != nil {
		return false // pgx refuses it too, and its text is redacted
	}
	return u.Fragment != "" || strings.Contains(u.EscapedPath(), "@") || u.User == nil && strings.Contains(u.RawQuery, "@")
}

// cutCatalog takes the parameter catalog out of a DSN. Where there is none, the
// name is empty.
func cutCatalog(dsn string) (catalog, rest string, err error) {
	start := queryStart(dsn)
	base, query := dsn[:start], strings.TrimPrefix(dsn[start:], "?")
	var kept []string
	named := false
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if key != "catalog" {
			kept = append(kept, pair)
			continue
		}
		named = true
		if catalog, err = url.QueryUnescape(value); err != nil {
			err = errors.New("the catalog's name in the DSN is badly escaped")
		}
	}
	if err == nil && named {
		err = checkCatalog(catalog)
	}
	if query = strings.Join(kept, "&"); query != "" {
		base += "?" + query
	}
	return catalog, base, err
}

// queryStart returns where the question mark of a DSN's parameters stands. As
// in libpq, one before the @ belongs to the password.
func queryStart(dsn string) int {
	from := strings.Index(dsn, "://") + len("://")
	if i := strings.IndexAny(dsn[from:], "@/"); i >= 0 && dsn[from+i] == '@' {
		from += i
	}
	if i := strings.IndexByte(dsn[from:], '?'); i >= 0 {
		return from + i
	}
	return len(dsn)
}

// redacted returns an error with the text of err, or a text that says less
// where the structure of the DSN is so broken that a password could be
// anywhere in it.
func redacted(err error, dsn string) error {
	vague := errors.New("the DSN can't be parsed (its text is left out, since a password may be in it): " + dsnForm)
	if strings.Count(dsn, "@") > 1 {
		return vague
	}
	u, urlErr := url.Parse(dsn)
	if urlErr != nil && strings.Contains(dsn, "@") {
		return vague
	}
	for _, secret := range secretsOf(u) {
		if strings.Contains(err.Error(), secret) {
			return vague
		}
	}
	return errors.New("the DSN can't be parsed: " + err.Error())
}

func secretsOf(u *url.URL) []string {
	if u == nil {
		return nil
	}
	var secrets []string
	if password, ok := u.User.Password(); ok && password != "" {
		secrets = append(secrets, password, url.QueryEscape(password))
	}
	for key, values := range u.Query() {
		if strings.Contains(strings.ToLower(key), "password") {
			secrets = append(secrets, strings.Join(values, ""), url.QueryEscape(strings.Join(values, "")))
		}
	}
	return secrets
}

// storeName names server, database and catalog without any secret.
func storeName(c *pgx.ConnConfig, catalog string) string {
	if strings.HasPrefix(c.Host, "/") {
		return fmt.Sprintf("postgres:///%s?host=%s&catalog=%s", c.Database, c.Host, catalog)
	}
	hosts := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks { // a host may stand there twice, with and without TLS
		hosts = append(hosts, net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))))
	}
	return fmt.Sprintf("postgres://%s/%s?catalog=%s", strings.Join(slices.Compact(hosts), ","), c.Database, catalog)
}
