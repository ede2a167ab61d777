package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

func (a *app) storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "store",
		Short:   "Check the store itself",
		Example: `  fencepost store check sqlite:/var/lib/app/catalog.db`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given after store: want check")
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check [URL]",
		Short: "Make sure that the store refuses, by racing writes of its own",
		Long: `Check races commits, claims and notes of its own in a scratch place beside the
catalog: of each race one must win, the others must be refused, and everybody
must read the winner. Everything rests on that. Behind a proxy, on a clone, on
some file systems and on some servers that call themselves compatible, a
condition may always hold, and then two processes write at the same time.

The scratch place is in the same database, cluster or folder, and is reached the
same way: over several connections, and on etcd by every address of every host.
No entry, commit or claim of the catalog is touched, so that the check may run
at any time, also while the service runs. It takes milliseconds, removes its
scratch place, and leaves one note on the board, which preflight shows. The first
claim of a catalog makes the same check by itself.

It needs the rights of a process of the service. With the least rights that
fencepost schema gives on PostgreSQL, a few rows of each check stay in the tables
of schema fencepost, under a name that no catalog can have.

URL is what --store takes. It ends with 0 where every loser was refused; with 78
where the store let two win, or can't be used as it is configured; with 75 where
the store failed in passing for all of --timeout, which proves nothing.`,
		Example: `  fencepost store check sqlite:/var/lib/app/catalog.db
  fencepost store check --store etcd://h1:2379,h2:2379,h3:2379/app
  FENCEPOST_STORE_FILE=/run/secrets/store fencepost store check --json | jq .passed`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && a.store != "" {
				return errors.New("the store is named twice, by --store and behind check: name it once")
			}
			if len(args) > 0 {
				a.store = args[0]
			}
			return a.action(func(ctx context.Context) error { return a.withStore(ctx, a.storeCheck) })(cmd, args)
		},
	})
	return cmd
}

// A checked is the answer in JSON.
type checked struct {
	Store  string   `json:"store"`
	Passed bool     `json:"passed"`
	Ways   []string `json:"ways"`
	Tried  []string `json:"tried"`
	Took   float64  `json:"took_ms"`
}

func (a *app) storeCheck(ctx context.Context, store driver.Store) error {
	cfg := a.config(a.timeout)
	cfg.Holder = fence.Holder{Name: "fencepost store check by " + a.who(), Build: readBuild(debug.ReadBuildInfo()).Version}
	var proof catalog.Proof
	err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		proof, err = catalog.Prove(ctx, store, cfg)
		return err
	})
	if err != nil {
		return err
	}
	c := checked{Store: store.String(), Passed: proof.Passed, Ways: proof.Ways, Tried: proof.Tried, Took: float64(proof.Took) / float64(time.Millisecond)}
	return a.show(c, c.print)
}

func (c checked) print(w io.Writer) error {
	rows := [][]string{{"store", c.Store}, {"result", fmt.Sprintf("passed: of each race one won, and the others were refused (%.0f ms)", c.Took)}}
	for _, tried := range c.Tried {
		rows = append(rows, []string{"tried", tried})
	}
	for _, way := range c.Ways {
		rows = append(rows, []string{"by", cell(way)})
	}
	return table(w, rows)
}
