package work_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

const (
	someRealSteps = 40 // on each store
	allRealSteps  = 20_000
)

// inTime plays a walk in real time, ten times as fast.
type inTime struct{}

func (inTime) settle()                             {}
func (inTime) scale(d time.Duration) time.Duration { return d / 10 }

// TestTheSameOnEveryStore plays shorter walks on real stores. Faults and commits of
// several processes overlap as they do there.
func TestTheSameOnEveryStore(t *testing.T) {
	t.Parallel()
	steps := someRealSteps
	if os.Getenv(drivertest.WholeVar) != "" {
		steps = allRealSteps
	}
	for name, place := range map[string]func(t *testing.T) func() (driver.Store, error){
		"sqlite": func(t *testing.T) func() (driver.Store, error) {
			path := filepath.Join(t.TempDir(), "catalog.db")
			return func() (driver.Store, error) { return sqlite.Open(path, sqlite.Config{}) }
		},
		"postgres": func(t *testing.T) func() (driver.Store, error) {
			url := testpg.URL(t)
			return func() (driver.Store, error) {
				return postgres.Open(context.WithoutCancel(t.Context()), url, postgres.Config{})
			}
		},
		"etcd": func(t *testing.T) func() (driver.Store, error) {
			url := testetcd.URL(t)
			return func() (driver.Store, error) { return etcd.Open(context.WithoutCancel(t.Context()), url, etcd.Config{}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opens := place(t)
			newWalk(t, uint64(time.Now().UnixNano()), func() driver.Store {
				s, err := opens()
				require.NoError(t, err)
				return s
			}, inTime{}).walk(steps)
		})
	}
}
