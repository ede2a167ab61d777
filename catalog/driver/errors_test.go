package driver_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func TestAnErrorNamesStoreMethodCauseAndRemedy(t *testing.T) {
	err := &driver.Error{Store: "memory:x", Op: "append", Err: driver.ErrConflict}
	require.EqualError(t, err, "memory:x: append: the condition did not hold")
	require.ErrorIs(t, err, driver.ErrConflict)
	err.Remedy = "free some space"
	require.EqualError(t, err, "memory:x: append: the condition did not hold: free some space")
}

func TestAnErrorHasTheCodeOfItsClass(t *testing.T) {
	err := &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt}, Err: driver.ErrCorrupt}
	require.Equal(t, exitcodes.Halt, err.Disposition())
	require.Equal(t, exitcodes.Restart, err.ExitCode())
	err.Code = exitcodes.Config
	require.Equal(t, exitcodes.Config, err.ExitCode())
}

func TestOnlyAClassifiedErrorSettlesItsOutcome(t *testing.T) {
	require.Equal(t, driver.Unknown, driver.OutcomeOf(errors.New("bare")))
	err := fmt.Errorf("above: %w", &driver.Error{Err: driver.ErrConflict})
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	err = &driver.Error{Class: driver.Class{Outcome: driver.Unknown}, Err: driver.ErrConflict}
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err))
	require.Equal(t, "not applied", driver.NotApplied.String())
	require.Equal(t, "unknown", driver.Unknown.String())
}
