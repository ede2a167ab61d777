package kv

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGlobMatchesAsRedisDoes(t *testing.T) {
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "anything", true},
		{"a*c", "abbbc", true},
		{"a*c", "abbbd", false},
		{"a*b*c", "a-b-b-c", true},
		{"*abab*", "xababab", true},
		{"h?llo", "hello", true},
		{"h?llo", "hllo", false},
		{"h[ae]llo", "hallo", true},
		{"h[ae]llo", "hillo", false},
		{"h[^e]llo", "hallo", true},
		{"h[^e]llo", "hello", false},
		{"h[a-c]llo", "hbllo", true},
		{"h[c-a]llo", "hbllo", true},
		{"h[a-c]llo", "hdllo", false},
		{`h[\]]llo`, "h]llo", true},
		{`h\*llo`, "h*llo", true},
		{`h\*llo`, "hallo", false},
		{`a\`, `a\`, true},
		{"[ab", "b", true},
		{"[", "a", false},
		{"[^", "a", true},
		{"\xff*", "\xff\x00", true},
	} {
		require.Equal(t, c.want, globMatch([]byte(c.pattern), c.key), "%q %q", c.pattern, c.key)
	}
}

func TestGlobIsNotSlowOnManyStars(t *testing.T) {
	require.False(t, globMatch([]byte(strings.Repeat("a*", 50)+"b"), strings.Repeat("a", 4096)))
}
