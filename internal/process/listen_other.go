//go:build unix && !linux

package process

import "errors"

// Listen is for Linux: elsewhere nothing says who sent a message, and no service
// manager asks for one.
func Listen() (name string, words <-chan Word, stop func(), err error) {
	return "", nil, nil, errors.New("not on this system")
}
