//go:build !unix

package entrypoint

import (
	"errors"

	"github.com/fencepost/fencepost/exitcodes"
)

// Run needs process groups and signals, which this system doesn't have.
func Run(Config) (exitcodes.Code, error) {
	return exitcodes.Usage, errors.New("fencepost run works on Unix only")
}
