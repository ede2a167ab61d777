package storeurl

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// The variables that name the database of guarded sessions if no argument does.
const (
	GuardEnvVar     = "FENCEPOST_GUARD_URL"      // the URL itself
	GuardFileEnvVar = "FENCEPOST_GUARD_URL_FILE" // a file that holds the URL
)

// A Guard makes connection strings for a database of PostgreSQL, whose sessions give a
// token. The zero Guard names no database.
type Guard struct {
	Catalog            string // or register, that the guards ask; "main" where none is named
	dsn, otherwiseSays string
}

// GuardOf reads the URL, or the libpq string of key=value, that the argument of a
// command line or else the environment names. An error shows no password, and asks for
// the code for usage, 64, where the argument holds one, else for configuration, 78.
func GuardOf(argument string, cfg Config) (Guard, error) {
	cfg = cfg.withDefaults()
	if err := CheckArgument(argument); err != nil {
		return Guard{}, err
	}
	dsn, err := guardDSN(argument, cfg.Getenv)
	if err != nil || dsn == "" {
		return Guard{}, exitcodes.WithCode(err, exitcodes.Config)
	}
	g := Guard{dsn: dsn, otherwiseSays: cfg.Getenv("PGOPTIONS")}
	_, catalog, err := postgres.GuardDSN(dsn, fence.Token{}, g.otherwiseSays)
	if err != nil {
		return Guard{}, exitcodes.WithCode(fmt.Errorf("the guarded database: %w", err), exitcodes.Config)
	}
	g.Catalog = catalog
	return g, nil
}

// IsZero reports whether g names no database.
func (g Guard) IsZero() bool { return g.dsn == "" }

// URL returns the connection string under a token. It may hold a password.
func (g Guard) URL(token fence.Token) (string, error) {
	guarded, _, err := postgres.GuardDSN(g.dsn, token, g.otherwiseSays)
	return guarded, err
}

func guardDSN(argument string, getenv func(string) string) (string, error) {
	if argument != "" {
		return argument, nil
	}
	if dsn := getenv(GuardEnvVar); dsn != "" {
		return dsn, nil
	}
	path := getenv(GuardFileEnvVar)
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", GuardFileEnvVar, err)
	}
	dsn := strings.TrimSpace(string(text))
	if dsn == "" {
		return "", errors.New("the file " + path + ", which " + GuardFileEnvVar + " names, is empty")
	}
	return dsn, nil
}
