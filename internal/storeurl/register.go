package storeurl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fencepost/fencepost/catalog/postgres"
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
}

// OpenRegister opens the register at url. It contacts nobody. An error asks for halt
// with the code for configuration, 78, and shows no password.
//
//	postgres://user@host:port/db?catalog=NAME   NAME is the register's, by default main
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

const registerForms = "postgres://user@host/database?catalog=NAME"

// openRegister calls the driver of url's scheme.
func openRegister(ctx context.Context, url string, cfg Config) (Register, error) {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "postgres", "postgresql":
		return asRegister(postgres.OpenRegister(ctx, url, postgres.Config{Logger: cfg.Logger}))
	}
	return nil, unknownScheme("register", url, registerForms)
}

func asRegister[R Register](r R, err error) (Register, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}
