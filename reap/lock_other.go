//go:build !unix || solaris || illumos || aix

package reap

import (
	"errors"
	"fmt"
	"os"
)

func openLockFile(path string) (*os.File, error) {
	return nil, fmt.Errorf("reap: %s: no lock on a file holds here: %w: leave Policy.Lock empty", path, errors.ErrUnsupported)
}

func flock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

func isStillAt(*os.File, string) (bool, error) { return false, errors.ErrUnsupported }

func releaseFile(f *os.File) error { return f.Close() }

func createLike(string, string) (*os.File, error) { return nil, errors.ErrUnsupported }

func openResult(string) (*os.File, error) { return nil, errors.ErrUnsupported }
