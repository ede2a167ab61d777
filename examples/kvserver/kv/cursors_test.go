package kv

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCursorsAreBounded(t *testing.T) {
	c := newCursors(2)
	first, second, third := c.add("a"), c.add("b"), c.add("c")
	_, ok := c.find(first)
	require.False(t, ok)
	from, ok := c.find(second)
	require.True(t, ok)
	require.Equal(t, "b", from)
	_, ok = c.find(third)
	require.True(t, ok)
	require.Len(t, c.from, 2)
}
