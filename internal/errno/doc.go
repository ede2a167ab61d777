// Package errno names the errors of the operating system, so that a driver's
// table can hold every one of them: those that its own system calls return,
// with what they mean to it, and the others with the reason why they would be
// a surprise.
//
// The list is Linux's. On other systems an error goes by its name there too;
// where a system has an error that Linux has not, no entry knows it.
package errno

import (
	"errors"
	"slices"
	"syscall"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// Family returns the errors of the operating system as a family of a driver's
// table: the driver's own entries, whose names are filled in, and for each
// error besides one that asks for panic.
func Family(note string, own []driver.Entry) driver.Family {
	f := driver.Family{Name: "system", Source: "errno of Linux", Note: note, Key: key}
	for _, e := range own {
		i := slices.IndexFunc(list, func(l listed) bool { return l.name == e.Code })
		if i >= 0 {
			e.Name, e.Also = list[i].text, list[i].also
		}
		f.Entries = append(f.Entries, e)
	}
	for _, l := range list {
		if !slices.ContainsFunc(own, func(e driver.Entry) bool { return e.Code == l.name }) {
			e := driver.Line(l.name, l.text, surprise(), driver.Unknown, l.kind)
			e.Also = l.also
			f.Entries = append(f.Entries, e)
		}
	}
	return f
}

func surprise() driver.Class {
	return driver.Class{Disposition: exitcodes.Panic, Remedy: "look at the system's log, and report it"}
}

// key returns the name of the system's error in err.
func key(err error) (string, bool) {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return "", false
	}
	name := name(number)
	return name, name != ""
}

// A listed is one error of Linux.
type listed struct {
	name, text string
	kind       string   // why a driver that has no entry of its own does not expect it
	also       []string // other names of the same number
}
