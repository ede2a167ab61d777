package driver

import (
	"errors"
	"slices"
	"strings"

	"github.com/fencepost/fencepost/exitcodes"
)

// A Table is everything that a driver knows about errors. It is what the
// driver classifies by, and what the documents are made from.
type Table struct {
	Store    string   // the kind of store, such as "postgres"
	Families []Family // asked in this order: the first that knows an error decides
}

// A Family is a part of a table: the errors of one list of somebody else's.
type Family struct {
	Name    string  // of the list, such as "SQLSTATE"
	Source  string  // whose list it is
	Note    string  // what holds for all of its entries; often empty
	Entries []Entry // all that the list has

	// Key returns the code that an error bears, as Entry.Code writes it; false
	// where it is no error of this family. Nil where the entries themselves
	// match errors.
	Key func(err error) (code string, ok bool)

	// Class returns the code of the entry that speaks for a code which no
	// entry has; "" where none does. False says that text has not the form of
	// a code of this family. Nil where no code stands for others.
	Class func(text string) (code string, ok bool)
}

// An Entry is one line of a table: what one error means to a catalog.
type Entry struct {
	Code string   // as its list writes it, or the name of an error or type of Go
	Name string   // what its list calls it, or its text
	Also []string // other spellings of the code

	Before Class // nothing was sent yet of a write that could land, or it is a read
	After  Class // the commit was sent

	// Is is the error of this package that such an error is besides, or nil.
	Is error

	// Why is the reason in one line.
	Why string

	// Match reports whether err is this one, where no code says it.
	Match func(err error) bool
}

// Line returns an entry whose class is the same before and after the commit
// was sent, but for the outcome.
func Line(code, name string, class Class, after Outcome, why string) Entry {
	e := Entry{Code: code, Name: name, Before: class, After: class, Why: why}
	e.Before.Outcome, e.After.Outcome = NotApplied, after
	return e
}

// For returns e for an error that is a value, with its text for a name.
func (e Entry) For(target error) Entry {
	e.Name = target.Error()
	e.Match = func(err error) bool { return errors.Is(err, target) }
	return e
}

// A Basis says what a class rests on.
type Basis uint8

const (
	Listed   Basis = iota // an entry of its own
	ByClass               // the entry that speaks for its class
	Unlisted              // nothing: nobody knows what it means
)

func (b Basis) String() string {
	switch b {
	case Listed:
		return "entry"
	case ByClass:
		return "class"
	}
	return "nothing"
}

// A Meaning is what a table says of one error or code.
type Meaning struct {
	Family string // empty where no family knows the error
	Code   string // as the error bears it
	Basis  Basis
	Entry  Entry // with Basis ByClass that of the class
}

// Class returns the class for a write that was sent, or was not.
func (m Meaning) Class(sent bool) Class {
	if sent {
		return m.Entry.After
	}
	return m.Entry.Before
}

// Of returns what err means. An error that has no entry, nor one that speaks
// for its class, is a reason to panic, and after the commit was sent also of
// unknown outcome.
func (t Table) Of(err error) Meaning {
	for i := range t.Families {
		if m, ok := t.Families[i].of(err); ok {
			return m
		}
	}
	return Meaning{Basis: Unlisted, Entry: nobody("")}
}

func (f *Family) of(err error) (Meaning, bool) {
	for i := range f.Entries {
		if e := &f.Entries[i]; e.Match != nil && e.Match(err) {
			return Meaning{Family: f.Name, Code: e.Code, Entry: *e}, true
		}
	}
	if f.Key == nil {
		return Meaning{}, false
	}
	code, ok := f.Key(err)
	if !ok {
		return Meaning{}, false
	}
	return f.Code(code), true
}

// Code returns what a code of this family means.
func (f Family) Code(code string) Meaning {
	if e, ok := f.entry(code); ok {
		return Meaning{Family: f.Name, Code: code, Entry: e}
	}
	if f.Class != nil {
		if class, ok := f.Class(code); ok && class != "" {
			if e, ok := f.entry(class); ok {
				// Whether such a code proves anything of a write, nobody has looked.
				e.After.Outcome = Unknown
				return Meaning{Family: f.Name, Code: code, Basis: ByClass, Entry: e}
			}
		}
	}
	return Meaning{Family: f.Name, Code: code, Basis: Unlisted, Entry: nobody(code)}
}

func (f *Family) entry(code string) (Entry, bool) {
	for i := range f.Entries {
		if e := &f.Entries[i]; e.Match == nil && e.Code == code {
			return *e, true
		}
	}
	return Entry{}, false
}

// nobody is the entry for what no entry knows.
func nobody(code string) Entry {
	return Line(code, "", Class{Disposition: exitcodes.Panic, Remedy: "nobody knows this error: report it"}, Unknown,
		"no list that this build was checked against has it, so that nothing is known of what it leaves behind")
}

// Find returns what a code or name means, whatever its case, such as "40001"
// or "serialization_failure": every entry that is called so; else every entry
// whose name has the word in it; else what stands for a code that the table
// lacks. It returns nothing for a word that is no code and in no name.
func (t Table) Find(word string) []Meaning {
	word = plain(word)
	if found := t.search(func(e Entry) bool { return slices.Contains(words(e), word) }); len(found) > 0 {
		return found
	}
	const shortest = 4 // a shorter word is in too many names to mean one
	if len(word) >= shortest {
		part := func(s string) bool { return strings.Contains(s, word) }
		if found := t.search(func(e Entry) bool { return slices.ContainsFunc(words(e), part) }); len(found) > 0 {
			return found
		}
	}
	for _, f := range t.Families {
		if f.Class == nil {
			continue
		}
		if _, ok := f.Class(strings.ToUpper(word)); ok {
			return []Meaning{f.Code(strings.ToUpper(word))}
		}
	}
	return nil
}

func (t Table) search(fits func(Entry) bool) (found []Meaning) {
	for _, f := range t.Families {
		for _, e := range f.Entries {
			if fits(e) {
				found = append(found, Meaning{Family: f.Name, Code: e.Code, Entry: e})
			}
		}
	}
	return found
}

// words returns what an entry is called, each in its plain form.
func words(e Entry) []string {
	all := make([]string, 0, 2+len(e.Also))
	for _, name := range append([]string{e.Code, e.Name}, e.Also...) {
		if name != "" {
			all = append(all, plain(name))
		}
	}
	return all
}

// plain returns text without what people leave out: case, spaces, and the
// prefix that every error of etcd's server has.
func plain(text string) string {
	text = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "etcdserver:")
	return strings.ReplaceAll(strings.ReplaceAll(text, " ", ""), "_", "")
}

// Clone returns a copy that the caller may change.
func (t Table) Clone() Table {
	t.Families = slices.Clone(t.Families)
	for i, f := range t.Families {
		t.Families[i].Entries = slices.Clone(f.Entries)
	}
	return t
}
