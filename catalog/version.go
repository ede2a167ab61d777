package catalog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A Migration changes the data from version Version-1 to Version. Its changes
// are made by the claim of the first build that has it, exactly once, in the
// same atomic commit as the token.
type Migration struct {
	Version uint64 // from 1, one more than the migration before
	Name    string // for people
	// ReadableBy is the oldest data version that a build must know to read
	// and write the data once this migration has run. Zero means Version: no
	// older build can. It never falls from one migration to the next.
	ReadableBy uint64
	// Up makes the change. It must do nothing but read and change tx, and is
	// called again if commits have changed what it read before the claim could
	// install its changes: at first beside the holder's commits, and only if
	// need be while nobody can commit. Then Config.MigrationTimeout bounds it. It
	// may take as long as it needs; it returns early when tx.Context ends, or is
	// left behind with a tx that refuses everything. What it returns fails the
	// claim, which then has written nothing.
	Up func(tx *Tx) error
}

func (m Migration) readableBy() uint64 {
	if m.ReadableBy == 0 {
		return m.Version
	}
	return m.ReadableBy
}

// checkMigrations names every mistake in a list of migrations. A build may
// drop its oldest ones; the rest have no gap.
func checkMigrations(ms []Migration) error {
	var errs []error
	for i, m := range ms {
		if m.Version == 0 || m.Up == nil {
			errs = append(errs, fmt.Errorf("migration %d (%q): want a version above 0 and a function", m.Version, m.Name))
		}
		if m.ReadableBy > m.Version {
			errs = append(errs, fmt.Errorf("migration %d (%q): readable by version %d, above its own", m.Version, m.Name, m.ReadableBy))
		}
		if i == 0 {
			continue
		}
		if prior := ms[i-1]; m.Version != prior.Version+1 || m.readableBy() < prior.readableBy() {
			errs = append(errs, fmt.Errorf("migration %d (%q), readable by %d, after %d, readable by %d: want the next version, and no less",
				m.Version, m.Name, m.readableBy(), prior.Version, prior.readableBy()))
		}
	}
	return errors.Join(errs...)
}

// dataVersion is the newest data version that a build with ms knows.
func dataVersion(ms []Migration) uint64 {
	if len(ms) == 0 {
		return 0
	}
	return ms[len(ms)-1].Version
}

// checkVersion says whether a build with ms may open data that c describes.
func checkVersion(c driver.Claim, ms []Migration) error {
	build := dataVersion(ms)
	switch {
	case build < c.ReadableBy:
		return incompatible("the data are at version %d, readable by builds that know version %d or later, and this build knows %d: start a newer build",
			c.DataVersion, c.ReadableBy, build)
	case c.DataVersion < build && !slices.ContainsFunc(ms, func(m Migration) bool { return m.Version == c.DataVersion+1 }):
		return incompatible("the data are at version %d, and the oldest migration of this build makes version %d: start a build in between first",
			c.DataVersion, ms[0].Version)
	}
	return nil
}

// versionsAfter returns the versions that the data of c have once ms have run.
func versionsAfter(c driver.Claim, ms []Migration) (version, readableBy uint64) {
	if dataVersion(ms) <= c.DataVersion {
		return c.DataVersion, c.ReadableBy
	}
	last := ms[len(ms)-1]
	return last.Version, last.readableBy()
}

func incompatible(format string, args ...any) error {
	return exitcodes.WithCode(fmt.Errorf("%w: %s", ErrIncompatible, fmt.Sprintf(format, args...)), exitcodes.Config)
}
