package storeurl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// The variables that name registers if no argument does, one URL a line.
const (
	RegistersEnvVar     = "FENCEPOST_REGISTERS"      // the URLs themselves
	RegistersFileEnvVar = "FENCEPOST_REGISTERS_FILE" // a file that holds them
)

// A Register is a [fence.Register] whose connections whoever opened it closes.
type Register interface {
	fence.Register
	io.Closer
	State(ctx context.Context) (driver.RegisterState, error)
}

// OpenRegister opens the register at url. It contacts nobody. An error asks for halt
// with the code for configuration, 78, and shows no password.
//
//	postgres://user@host:port/db?catalog=NAME   NAME is the register's, by default main
//	sqlite:PATH                                 the application's own file, which is there
//	etcd://host:port,host:port/prefix           a prefix of its own; etcds:// with TLS
//
// The other parameters are those of [Open].
func OpenRegister(ctx context.Context, url string, cfg Config) (Register, error) {
	r, err := openRegister(ctx, url, cfg.withDefaults())
	if err != nil {
		return nil, exitcodes.WithCode(err, exitcodes.Config)
	}
	return r, nil
}

// OpenRegisters opens the registers that the arguments of a command line name or, if
// there are none, those that FENCEPOST_REGISTERS or else the file of
// FENCEPOST_REGISTERS_FILE names. It may return none. The caller closes each.
//
// An argument that holds a password is refused with the code for usage, 64.
func OpenRegisters(ctx context.Context, arguments []string, cfg Config) (all []Register, err error) {
	urls, err := registerURLs(arguments, cfg.withDefaults().Getenv)
	if err != nil {
		return nil, err
	}
	for _, url := range urls {
		r, err := OpenRegister(ctx, url, cfg)
		if err != nil {
			for _, opened := range all {
				err = errors.Join(err, opened.Close())
			}
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// OpenRegisterArgument opens the register that one argument of a command line names: by
// its URL, or by a number, which is that of a line of FENCEPOST_REGISTERS, or else of the
// file of FENCEPOST_REGISTERS_FILE, so that a password stays there.
func OpenRegisterArgument(ctx context.Context, argument string, cfg Config) (Register, error) {
	n, err := strconv.ParseUint(argument, 10, 31)
	if err != nil {
		if err := CheckArgument(argument); err != nil {
			return nil, err
		}
		return OpenRegister(ctx, argument, cfg)
	}
	urls, err := registerURLs(nil, cfg.withDefaults().Getenv)
	if err != nil {
		return nil, err
	}
	if n == 0 || n > uint64(len(urls)) {
		return nil, exitcodes.WithCode(fmt.Errorf("there is no register %d: %s names %d", n, RegistersEnvVar, len(urls)), exitcodes.Config)
	}
	return OpenRegister(ctx, urls[n-1], cfg)
}

// registerURLs returns the URLs to use.
func registerURLs(arguments []string, getenv func(string) string) ([]string, error) {
	for _, url := range arguments {
		if err := CheckArgument(url); err != nil {
			return nil, err
		}
	}
	if len(arguments) > 0 {
		return arguments, nil
	}
	text, named := getenv(RegistersEnvVar), RegistersEnvVar
	if path := getenv(RegistersFileEnvVar); text == "" && path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, exitcodes.WithCode(fmt.Errorf("%s: %w", RegistersFileEnvVar, err), exitcodes.Config)
		}
		text, named = string(content), fmt.Sprintf("the file %s, which %s names,", path, RegistersFileEnvVar)
	} else if text == "" {
		return nil, nil
	}
	urls := lines(text)
	if len(urls) == 0 { // a holder that was given a list must not run without registers
		return nil, exitcodes.WithCode(fmt.Errorf("%s names no register: want a URL a line, such as %s", named, registerForms), exitcodes.Config)
	}
	return urls, nil
}

// lines returns the lines of a text that say something.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

const registerForms = "postgres://user@host/database?catalog=NAME, sqlite:PATH, etcd://host:2379/prefix or etcds://host:2379/prefix"

// openRegister calls the driver of url's scheme.
func openRegister(ctx context.Context, url string, cfg Config) (Register, error) {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "postgres", "postgresql":
		return asRegister(postgres.OpenRegister(ctx, url, postgres.Config{Logger: cfg.Logger}))
	case "sqlite":
		path, trusted, err := sqlitePath(url, "register")
		if err != nil {
			return nil, err
		}
		return asRegister(sqlite.OpenRegister(path, sqlite.Config{Logger: cfg.Logger, TrustFileSystem: trusted}))
	case "etcd", "etcds":
		return asRegister(etcd.OpenRegister(ctx, url, etcd.Config{Logger: cfg.Logger, Getenv: cfg.Getenv, Lease: cfg.Lease}))
	}
	return nil, unknownScheme("register", url, registerForms)
}

func asRegister[R Register](r R, err error) (Register, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}
