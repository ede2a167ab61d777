package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/fence"
)

// optionsKey is the parameter with the settings that a session begins with, in the
// words of PostgreSQL's command line.
const optionsKey = "options"

// GuardDSN returns a DSN whose sessions give token to the guards of their tables, for
// psql, libpq and every client that reads its parameter options: dsn with
// -c fencepost.token=TOKEN behind the options that it has or, if it has none, behind
// pgOptions, which is what PGOPTIONS says to the client. DSN is a URL or a libpq string
// of key=value, and may name a catalog or register, which is returned ("main" by
// default) and taken out, since clients don't know that parameter.
//
// A pooler in transaction mode refuses such sessions, or ignores what they say: behind
// one the token belongs into each transaction. No error of it holds a password.
func GuardDSN(dsn string, token fence.Token, pgOptions string) (guarded, catalog string, err error) {
	setting := "-c fencepost.token=" + token.String()
	isURL := strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
	if isURL {
		guarded, catalog, err = guardURL(dsn, setting, pgOptions)
	} else {
		guarded, catalog, err = guardKeywords(dsn, setting, pgOptions)
	}
	if err != nil {
		return "", "", err
	}
	switch _, err := pgconn.ParseConfig(guarded); {
	case err != nil && isURL:
		return "", "", redacted(err, guarded)
	case err != nil:
		return "", "", errKeywords
	}
	return guarded, cmp.Or(catalog, "main"), nil
}

var errTwoOptions = errors.New("the DSN has the parameter options twice, of which clients take different ones: give it once")

func guardURL(dsn, setting, options string) (guarded, catalog string, err error) {
	catalog, rest, err := cutCatalog(dsn)
	if err != nil {
		return "", "", err
	}
	if hidesPassword(rest) {
		return "", "", errHiddenPassword
	}
	start := queryStart(rest)
	base, query := rest[:start], strings.TrimPrefix(rest[start:], "?")
	var kept []string
	found := false
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		plain, keyErr := url.PathUnescape(key)
		switch {
		case pair == "":
		case keyErr == nil && plain == optionsKey && found:
			return "", "", errTwoOptions
		case keyErr == nil && plain == optionsKey:
			found = true
			if options, err = unescapeOptions(value); err != nil {
				return "", "", errors.New("the options in the DSN are badly escaped")
			}
		default:
			kept = append(kept, pair)
		}
	}
	// libpq reads no + as a space, and pgx does.
	escaped := strings.ReplaceAll(url.QueryEscape(join(options, setting)), "+", "%20")
	return base + "?" + strings.Join(append(kept, optionsKey+"="+escaped), "&"), catalog, nil
}

// unescapeOptions reads a + as a space, as Go writes it, unless there is a space that
// is written as libpq reads it.
func unescapeOptions(value string) (string, error) {
	if strings.Contains(value, "%20") {
		return url.PathUnescape(value)
	}
	return url.QueryUnescape(value)
}

func join(options, setting string) string { return strings.TrimSpace(options + " " + setting) }

func guardKeywords(dsn, setting, options string) (guarded, catalog string, err error) {
	words, err := keywords(dsn)
	if err != nil {
		return "", "", err
	}
	var kept []string
	found := false
	for _, w := range words {
		switch {
		case w.key == "catalog":
			if catalog = w.value; checkCatalog(catalog) != nil {
				return "", "", checkCatalog(catalog)
			}
		case w.key == optionsKey && found:
			return "", "", errTwoOptions
		case w.key == optionsKey:
			found, options = true, w.value
		default:
			kept = append(kept, w.String())
		}
	}
	kept = append(kept, keyword{optionsKey, join(options, setting)}.String())
	return strings.Join(kept, " "), catalog, nil
}

// A keyword is one key=value of a libpq string.
type keyword struct{ key, value string }

func (w keyword) String() string {
	return w.key + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(w.value) + "'"
}

var errKeywords = fmt.Errorf("the DSN is neither a URL nor a string of key=value that libpq takes (its text is left out, since a password may be in it): %s", dsnForm)

// keywords reads a libpq string as libpq does: spaces around =, values in single
// quotes, and a backslash before any character.
func keywords(dsn string) (all []keyword, err error) {
	const spaces = " \t\n\r\v\f"
	for rest := strings.TrimLeft(dsn, spaces); rest != ""; rest = strings.TrimLeft(rest, spaces) {
		key, after, found := strings.Cut(rest, "=")
		if key = strings.TrimRight(key, spaces); !found || key == "" || strings.ContainsAny(key, spaces+`'\`) {
			return nil, errKeywords
		}
		value, left, err := keywordValue(strings.TrimLeft(after, spaces))
		if err != nil {
			return nil, err
		}
		all, rest = append(all, keyword{key, value}), left
	}
	if len(all) == 0 {
		return nil, errKeywords
	}
	return all, nil
}

// keywordValue reads one value, and returns what stands behind it.
func keywordValue(text string) (value, rest string, err error) {
	text, quoted := strings.CutPrefix(text, "'")
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case c == '\'' && quoted:
			return b.String(), text[i+1:], nil
		case !quoted && strings.IndexByte(" \t\n\r\v\f", c) >= 0:
			return b.String(), text[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errKeywords
	}
	return b.String(), "", nil
}
