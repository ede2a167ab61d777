package postgres

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func primaryOn(address string, timeline uint32, started int64) sight {
	return sight{address: address, server: server{system: "1", timeline: timeline, started: started}}
}

func standbyOn(address string, timeline uint32, started int64) sight {
	s := primaryOn(address, timeline, started)
	s.server.standby = true
	return s
}

func silent(address string) sight { return sight{address: address, err: errors.New("no answer")} }

func ofSystem(s sight, system string) sight {
	s.server.system = system
	return s
}

func TestTheHighestTimelineThatAnswersIsTheStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sights   []sight
		primary  string // the store, or nobody
		old      []string
		err      error
		timeline uint32
	}{
		"nobody answers":                     {sights: []sight{silent("a"), silent("b")}},
		"one answers":                        {sights: []sight{silent("a"), primaryOn("b", 1, 1)}, primary: "b", timeline: 1},
		"a primary and its standby":          {sights: []sight{standbyOn("a", 1, 1), primaryOn("b", 1, 2)}, primary: "b", timeline: 1},
		"an old primary and the new one":     {sights: []sight{primaryOn("a", 1, 1), primaryOn("b", 2, 2)}, primary: "b", old: []string{"a"}, timeline: 2},
		"the new one first":                  {sights: []sight{primaryOn("b", 2, 2), primaryOn("a", 1, 1)}, primary: "b", old: []string{"a"}, timeline: 2},
		"two old ones":                       {sights: []sight{primaryOn("a", 1, 1), primaryOn("b", 3, 2), primaryOn("c", 2, 3)}, primary: "b", old: []string{"a", "c"}, timeline: 3},
		"a standby of one that is not named": {sights: []sight{primaryOn("a", 1, 1), standbyOn("b", 2, 2)}, old: []string{"a"}, timeline: 2},
		"a standby that may not say":         {sights: []sight{primaryOn("a", 1, 1), standbyOn("b", 0, 2)}, primary: "a", timeline: 1},
		"one under two names":                {sights: []sight{primaryOn("a", 1, 1), primaryOn("b", 1, 1)}, primary: "a", timeline: 1},
		"a copy that was started":            {sights: []sight{primaryOn("a", 1, 1), primaryOn("b", 1, 2)}, primary: "a", timeline: 1, err: errTwins},
		"copies below the store":             {sights: []sight{primaryOn("a", 1, 1), primaryOn("b", 1, 2), primaryOn("c", 2, 3)}, primary: "c", old: []string{"a", "b"}, timeline: 2},
		"two systems":                        {sights: []sight{primaryOn("a", 1, 1), ofSystem(primaryOn("b", 2, 2), "2")}, err: errSystems},
		"a standby of another system":        {sights: []sight{primaryOn("a", 1, 1), ofSystem(standbyOn("b", 0, 2), "2")}, err: errSystems},
		"a system that may not be asked for": {sights: []sight{primaryOn("a", 1, 1), ofSystem(standbyOn("b", 0, 2), "")}, primary: "a", timeline: 1},
	} {
		found := compare(c.sights)
		var old []string
		for _, s := range found.old {
			old = append(old, s.address)
		}
		require.Equal(t, c.primary, found.primary, name)
		require.Equal(t, c.old, old, name)
		require.Equal(t, c.timeline, found.timeline, name)
		require.ErrorIs(t, found.err, c.err, name)
	}
}
