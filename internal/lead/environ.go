//go:build unix

package lead

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/process"
)

// The variables by which the command, and hooks, learn what this process holds.
const (
	TokenEnv      = "FENCEPOST_TOKEN"       // such as g7.e41
	GenerationEnv = generation.EnvVar       // such as 7
	EpochEnv      = "FENCEPOST_EPOCH"       // such as 41
	CatalogEnv    = "FENCEPOST_CATALOG"     // for fencepost.guard('NAME', TOKEN)
	TokenFileEnv  = "FENCEPOST_TOKEN_FILE"  // the file that holds the token
	GuardedURLEnv = "FENCEPOST_GUARDED_URL" // whose sessions are guarded
)

// environ is the environment under a token.
func (c Config) environ(token fence.Token) ([]string, error) {
	values := c.withoutToken()
	values[TokenEnv], values[GenerationEnv], values[EpochEnv] = token.String(), token.Generation.String(), token.Epoch.String()
	values[TokenFileEnv] = c.TokenFile
	if c.GuardedURL != nil {
		url, err := c.GuardedURL(token)
		if err != nil {
			return nil, err
		}
		values[GuardedURLEnv] = url
	}
	return process.With(c.Environ, values), nil
}

// withoutToken returns the variables of a process that has no token. Empty ones are
// removed from its environment.
func (c Config) withoutToken() map[string]string {
	values := map[string]string{
		TokenEnv: "", GenerationEnv: c.Lead.Catalog.Generation.String(), EpochEnv: "",
		CatalogEnv: c.Catalog, TokenFileEnv: "", GuardedURLEnv: "",
		exitcodes.NotifySocketEnv: "", exitcodes.TerminationLogEnv: "",
	}
	for _, name := range c.Hidden {
		values[name] = ""
	}
	return values
}

// A tokenFile holds a token while a command runs. The zero tokenFile is none.
type tokenFile struct {
	path string
	text []byte
}

// writeToken writes the token to path, so that a reader sees all of it or what was
// there before.
func writeToken(path string, token fence.Token) (tokenFile, error) {
	f := tokenFile{path: path, text: []byte(token.String() + "\n")}
	if path == "" {
		return f, nil
	}
	if err := f.write(); err != nil {
		return f, exitcodes.WithCode(fmt.Errorf("the token's file: %w: name another one by --token-file", err), exitcodes.Config)
	}
	return f, nil
}

func (f tokenFile) write() error {
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".fencepost-token-*") // with rights 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(f.text)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // what failed is said
	}
	return err
}

// remove removes the file, unless another process has replaced it since.
func (f tokenFile) remove() {
	if f.path == "" {
		return
	}
	if text, err := os.ReadFile(f.path); err == nil && bytes.Equal(text, f.text) {
		_ = os.Remove(f.path) // a stale token is refused wherever it counts
	}
}

// tokenFileIsWritable finds out before this process waits for its turn whether it
// could write the token's file.
func tokenFileIsWritable(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return exitcodes.WithCode(fmt.Errorf("the token's file %s is no file: name another one by --token-file", path), exitcodes.Config)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".fencepost-token-*")
	if err != nil {
		return exitcodes.WithCode(fmt.Errorf("the token's file can't be written: %w: name another one by --token-file", err), exitcodes.Config)
	}
	return errors.Join(tmp.Close(), os.Remove(tmp.Name()))
}
