package entrypoint

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/identity"
)

func TestAChildIsToldWhichProcessRunHasWaitedFor(t *testing.T) {
	t.Setenv(identity.EndedEnv, "said to run itself, by its own supervisor")
	r := begin(t, Config{}, "told=1", "told=166", "told=0")
	r.ends(0)
	events := r.read(r.events)
	var said [2][]string
	for i, what := range []string{"me", "ended"} {
		for _, found := range regexp.MustCompile("child "+what+`=(\S*) `).FindAllStringSubmatch(events, -1) {
			said[i] = append(said[i], found[1])
		}
	}
	me, ended := said[0], said[1]
	require.Len(t, me, 3, events)
	require.Equal(t, []string{"", me[0], me[1]}, ended, "each of the one before, and the first one of nobody")
}
