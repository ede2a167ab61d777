package leader

import (
	"context"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/internal/identity"
)

func TestAProofIsThereAfterTheFirstLookAndIsOfOneClaimOnly(t *testing.T) {
	t.Parallel()
	l, err := New(memory.New(), Config{Catalog: catalog.Config{Generation: 1}})
	require.NoError(t, err)
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	holder, err := identity.Child(cmd.Process.Pid)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())

	d, beat := newDetector(l), Beat{Claim: driver.NewID()}
	beat.Said = &HolderState{Claim: beat.Claim, Process: holder.String()}
	defer d.stop()
	over, cancel := context.WithCancel(t.Context())
	cancel() // so that no watch can have found it
	other := driver.NewID()
	d.at(over, other, beat)
	_, dead := d.dead(other)
	require.False(t, dead, "the heartbeat is not of the claim that is looked at")
	d.at(over, beat.Claim, beat)
	why, dead := d.dead(beat.Claim)
	require.True(t, dead)
	require.Contains(t, why, "no process has its pid")
	_, dead = d.dead(other)
	require.False(t, dead, "of the claim that follows")

	again := newDetector(l)
	defer again.stop()
	_, dead = again.dead(beat.Claim)
	require.True(t, dead, "it is kept over a claim that failed")
}
