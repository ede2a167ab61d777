package catalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

func TestConfigurationNamesEveryMistakeAtOnce(t *testing.T) {
	up := func(*Tx) error { return nil }
	err := Config{
		Generation: generation.Max + 1, StoreTimeout: -time.Second, MaxQueued: -1,
		Migrations: []Migration{{Version: 2, Name: "b", Up: up, ReadableBy: 3}, {Version: 4, Name: "d"}},
	}.withDefaults().validate()
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	for _, part := range []string{"StoreTimeout is -1s", "MaxQueued is -1", "above the largest generation",
		`migration 2 ("b"): readable by version 3`, `migration 4 ("d"): want a version above 0 and a function`, `after 2, readable by 3`} {
		require.ErrorContains(t, err, part)
	}
	require.NoError(t, Config{}.withDefaults().validate())
}
