package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/fence"
)

// writerEnv makes the test binary a process that writes a row under a guard, again
// and again, until it is refused: the address, the catalog's prefix, the row and
// the token, with spaces between.
const writerEnv = "FENCEPOST_TEST_WRITER"

func writeUntilRefused(spec string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f := strings.Fields(spec)
	token, err := fence.Parse(f[3])
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: f[:1], Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	kv, err := etcd.GuardKV(ctx, client, f[1], token)
	for n := 0; err == nil; n++ {
		_, err = kv.Put(ctx, f[2], "old")
		if n == 0 {
			fmt.Println("writes")
		}
	}
	return errors.Join(err, client.Close())
}

func TestAProcessThatWasStoppedAndIsContinuedBehindAClaimWritesNothing(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	self, err := os.Executable()
	require.NoError(t, err)
	for round := range 4 {
		token := claimBy(t, g.store, 1).Token
		cmd := exec.CommandContext(within(t, time.Minute), self)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %v", writerEnv, g.client.Endpoints()[0], g.prefix, g.rows+"a", token))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		require.True(t, lines.Scan())
		require.Equal(t, "writes", lines.Text())
		for range round * 3 { // so that it is stopped at one moment or another
			_, err := g.client.Get(within(t, time.Minute), g.rows+"a")
			require.NoError(t, err)
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		second := claimBy(t, g.store, 2).Token
		_, err = g.client.Put(within(t, time.Minute), g.rows+"a", "new")
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
		require.True(t, lines.Scan())
		require.Contains(t, lines.Text(), fmt.Sprintf("refused by etcd /%s: held %v, the newest is %v", g.prefix, token, second))
		require.NoError(t, cmd.Wait())
		require.Equal(t, map[string]string{"a": "new"}, g.values())
		g = newGuardedRows(t) // generation 1 again
	}
}
