package exitcodes

import (
	"slices"
	"strings"
)

// A Meaning says of one exit status what it stands for, in words for who sees
// it. docs/supervisors.md, docs/errors.md and fencepost explain are made of them;
// the table in the package documentation is their short form.
type Meaning struct {
	Code        Code
	Last        Code // of a range of codes; else the same as Code
	Name        string
	Disposition string // as Disposition.String has it, or "-"
	Means       string
	Producer    string // which programs end with it
	Supervisors []Advice
}

// Because returns why a process ends so in a few words: the first sentence of
// Means, without its full stop.
func (m Meaning) Because() string {
	because, _, _ := strings.Cut(m.Means, ". ")
	return strings.TrimSuffix(because, ".")
}

// An Advice is what one kind of supervisor does about an exit status, with the
// file for it in examples/supervisors.
type Advice struct {
	Supervisor string
	Does       string // in a few words, such as "stays down"; the table in docs/supervisors.md
	Note       string // by which setting, or what else is to be done; may be empty
}

// String returns all of it in one line.
func (a Advice) String() string {
	if a.Note == "" {
		return a.Does
	}
	return a.Does + ": " + a.Note
}

// Meanings returns what each exit status of the contract stands for.
func Meanings() []Meaning { return slices.Clone(meanings) }

// MeaningOf returns what an exit status stands for; false where the contract
// does not have it, so that it is the application's own.
func MeaningOf(code Code) (Meaning, bool) {
	for _, m := range meanings {
		if m.Code <= code && code <= m.Last {
			return m, true
		}
	}
	return Meaning{}, false
}
