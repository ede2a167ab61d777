package leader

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// Old and new builds share the board: a field may be added, and none changed.
func TestTheNotesOnTheBoardAreFrozen(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, c := range []struct {
		note any
		want string
	}{
		{Intent{Generation: 8, At: at, By: "ann"}, `{"generation":8,"at":"2026-01-02T03:04:05.000006Z","by":"ann"}`},
		{
			Beat{Claim: driver.ID{1, 2}, Token: fence.Token{Generation: 7, Epoch: 41}, Seq: 9, At: at, Admin: "127.0.0.1:1", Left: true},
			`{"claim":"01020000000000000000000000000000","token":"g7.e41","seq":9,"at":"2026-01-02T03:04:05.000006Z","admin":"127.0.0.1:1","left":true}`,
		},
	} {
		got, err := json.Marshal(c.note)
		require.NoError(t, err)
		require.JSONEq(t, c.want, string(got))
		require.Equal(t, c.want, string(got))
	}
	require.Equal(t, "promote", intentKey)
	require.Equal(t, "holder", beatKey)
}
