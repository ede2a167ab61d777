package entrypoint

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

func TestAStartThatFailsForNowIsTriedAgainAndItsRecordSaysRetry(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	shell, err := os.ReadFile("/bin/true")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, shell, 0o700))
	writer, err := os.OpenFile(program, os.O_WRONLY, 0) // the program is being replaced
	require.NoError(t, err)
	r := begin(t, Config{Command: []string{program}})
	require.Eventually(t, func() bool {
		_, err := exitcodes.ReadRecord(r.record)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	record, err := exitcodes.ReadRecord(r.record)
	require.NoError(t, err)
	require.Equal(t, exitcodes.Retry.String(), record.Disposition)
	require.Equal(t, exitcodes.TempFail, record.Code)
	require.Contains(t, record.Reason, "text file busy")
	r.says("no child was started: text file busy: restarting in ")
	require.NoError(t, writer.Close())
	r.ends(0)
}

func TestAProgramThatIsGoneAtARestartIsBeingReplaced(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	write := func(code int) {
		text := fmt.Sprintf("#!/bin/sh\nrm \"$0\"\nexit %d\n", code)
		require.NoError(t, os.WriteFile(program+".new", []byte(text), 0o700))
		require.NoError(t, os.Rename(program+".new", program))
	}
	write(75)
	r := begin(t, Config{Command: []string{program}})
	r.says("no such file or directory: restarting in ")
	write(0)
	r.ends(0)
}
