package leftovers_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/reap/leftovers"
)

func TestThePageNamesEveryKind(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reap.md")
	require.NoError(t, err)
	s := memory.New()
	claim(t, s, 9)
	passes := pass(t, s, leftovers.Config{}).Passes
	require.Len(t, passes, 6)
	for kind := range passes {
		require.Contains(t, string(page), "**"+string(kind)+"**")
	}
}
