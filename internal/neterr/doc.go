// Package neterr has what every driver that speaks over a network knows alike:
// the errors of certificates and handshakes, of contexts, of sockets, of names
// and connections. Each driver puts these families into its table beside its
// client's own.
//
// Once a write was sent, none of these errors says what became of it: its
// outcome is unknown. That no write can have been sent over a connection which
// never came to be, the driver says, by asking for the class before the commit.
package neterr

import (
	"errors"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// Remedies are what to do, in the words of one driver's configuration.
type Remedies struct {
	TLS     string // where certificates and handshakes are set up
	Name    string // where the host's name stands
	Address string // where host, port or socket stand
	Start   string // where a socket's file is missing
}

func retry(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Retry, Remedy: remedy}
}

func config(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: remedy}
}

func bug() driver.Class {
	return driver.Class{Disposition: exitcodes.Panic, Remedy: "this is a defect of this library or of its client: report it"}
}

// Is returns an entry for an error that is a value.
func Is(target error, code string, class driver.Class, after driver.Outcome, why string) driver.Entry {
	return driver.Line(code, "", class, after, why).For(target)
}

// As returns an entry for an error that is a type, with what further is asked
// of it, or nil.
func As[T error](code, name string, fits func(T) bool, class driver.Class, after driver.Outcome, why string) driver.Entry {
	e := driver.Line(code, name, class, after, why)
	e.Match = func(err error) bool {
		var target T
		return errors.As(err, &target) && (fits == nil || fits(target))
	}
	return e
}
