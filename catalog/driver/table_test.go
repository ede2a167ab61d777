package driver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

var errOdd = errors.New("an odd thing")

// numbered is an error with a code.
type numbered string

func (n numbered) Error() string { return "code " + string(n) }

func small() driver.Table {
	retry := driver.Class{Disposition: exitcodes.Retry}
	line := driver.Line
	return driver.Table{Store: "small", Families: []driver.Family{
		{Name: "values", Entries: []driver.Entry{line("odd", "", retry, driver.NotApplied, "it is").For(errOdd)}},
		{Name: "codes",
			Entries: []driver.Entry{
				line("A00", "a_class", retry, driver.NotApplied, "as is"),
				line("A01", "a_first", driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config}, driver.NotApplied, "as is"),
			},
			Key: func(err error) (string, bool) {
				var n numbered
				return string(n), errors.As(err, &n) && n != ""
			},
			Class: func(text string) (string, bool) {
				if len(text) != 3 {
					return "", false
				}
				return text[:1] + "00", true
			},
		},
	}}
}

func TestAnErrorIsWhatTheFirstFamilyThatKnowsItSays(t *testing.T) {
	var n numbered = "A01"
	m := small().Of(fmt.Errorf("%w: %w", n, errOdd))
	require.Equal(t, "values", m.Family)
	require.Equal(t, "an odd thing", m.Entry.Name)
}

func TestACodeThatNoEntryHasGoesByItsClassAndProvesNothing(t *testing.T) {
	families := small().Families
	m := families[1].Code("A99")
	require.Equal(t, driver.ByClass, m.Basis)
	require.Equal(t, "A99", m.Code)
	require.Equal(t, exitcodes.Retry, m.Class(true).Disposition)
	require.Equal(t, driver.Unknown, m.Class(true).Outcome, "its class is refused, but nobody looked at this code")
	require.Equal(t, driver.NotApplied, m.Class(false).Outcome)
	require.Equal(t, driver.NotApplied, families[1].Code("A00").Class(true).Outcome, "the class's own entry is as it was")
}

func TestWhatNobodyKnowsIsAReasonToPanicAndOfUnknownOutcome(t *testing.T) {
	for _, m := range []driver.Meaning{small().Of(errors.New("news")), small().Families[1].Code("B01"), small().Families[1].Code("nonsense")} {
		require.Equal(t, driver.Unlisted, m.Basis)
		require.Equal(t, exitcodes.Panic, m.Class(true).Disposition)
		require.Equal(t, driver.Unknown, m.Class(true).Outcome)
		require.Equal(t, driver.NotApplied, m.Class(false).Outcome)
		require.NotEmpty(t, m.Class(true).Remedy)
	}
}

func TestAnEntryIsFoundByCodeNameOrAPartOfIt(t *testing.T) {
	for word, want := range map[string]string{
		"A01": "A01", "a01": "A01", " a_first ": "A01", "A FIRST": "A01", "etcdserver: a first": "A01", "firs": "A01", "odd thing": "odd",
		"a77": "A77", "Z99": "Z99",
	} {
		found := small().Find(word)
		require.Len(t, found, 1, word)
		require.Equal(t, want, found[0].Code, word)
	}
	for _, word := range []string{"", "x", "A", "nonsense", strings.Repeat("9", 50)} {
		require.Empty(t, small().Find(word), word)
	}
}

func TestACloneIsTheCallersToChange(t *testing.T) {
	table := small()
	clone := table.Clone()
	clone.Families[1].Entries[0].Why = "changed"
	require.Equal(t, "as is", table.Families[1].Entries[0].Why)
}

func TestABasisHasAWord(t *testing.T) {
	require.Equal(t, "entry class nothing", fmt.Sprint(driver.Listed, " ", driver.ByClass, " ", driver.Unlisted))
}
