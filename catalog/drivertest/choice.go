package drivertest

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// WholeVar names the environment variable that has long tests be played whole, if it
// is not empty: here every case, whatever [Except] and [Part] say. Else parts of them
// are.
const WholeVar = "FENCEPOST_WHOLE"

// An Option leaves out cases: for a further way to a store, on which all are played by
// the first.
type Option func(*choice)

// Except leaves out the cases of these names.
func Except(names ...string) Option {
	return func(c *choice) { c.except = append(c.except, names...) }
}

// Part leaves out all but every n-th case, from the one of this index on.
func Part(index, n int) Option {
	return func(c *choice) { c.index, c.of = index, n }
}

type choice struct {
	except    []string
	index, of int
}

// chosen returns those of all that are to be played. Name returns the name of one.
func chosen[C any](t *testing.T, all []C, name func(C) string, options []Option) (played []C) {
	t.Helper()
	c := choice{of: 1}
	for _, o := range options {
		o(&c)
	}
	for _, except := range c.except {
		require.True(t, slices.ContainsFunc(all, func(one C) bool { return name(one) == except }), "no case is called %q", except)
	}
	whole := os.Getenv(WholeVar) != ""
	for i, one := range all {
		if whole || i%c.of == c.index && !slices.Contains(c.except, name(one)) {
			played = append(played, one)
		}
	}
	require.NotEmpty(t, played)
	return played
}
