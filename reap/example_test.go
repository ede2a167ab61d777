package reap_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/reap"
)

// Each generation has a folder, which bears the token under which it was made.
func ExamplePass() {
	root, err := os.MkdirTemp("", "generations")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	for _, name := range []string{"g5.e11", "g6.e12", "g7.e13", "g8.e14"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o700); err != nil {
			panic(err)
		}
		hours := time.Now().Add(-3 * time.Hour)
		if err := os.Chtimes(filepath.Join(root, name), hours, hours); err != nil {
			panic(err)
		}
	}
	folders := reap.Source{
		List: func(context.Context) (items []reap.Item, err error) {
			entries, err := os.ReadDir(root)
			for _, e := range entries {
				made, perr := fence.Parse(e.Name())
				info, ierr := e.Info()
				if perr != nil || ierr != nil {
					continue // nobody of ours made it, or it is gone
				}
				items = append(items, reap.Item{ID: e.Name(), Made: made, At: info.ModTime()})
			}
			return items, err
		},
		Delete: func(_ context.Context, item reap.Item) error {
			path := filepath.Join(root, item.ID)
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
				return reap.ErrGone
			}
			return os.RemoveAll(path)
		},
	}
	now := fence.Token{Generation: 8, Epoch: 14} // a holder's own: catalog.Catalog.Token
	report, err := reap.Pass(context.Background(), folders, now, reap.Policy{})
	fmt.Println(report, err)
	// Output: done: listed 4 in 1 listings, deleted 2, kept 2, already gone 0, vanished 0, failed 0, left 0, waited 0 s <nil>
}
