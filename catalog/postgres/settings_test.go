package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestEverySettingThatCouldLoseACommitIsSaidAloud(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*settings)
		in     func(settings) driver.Finding
		grade  driver.Grade
	}{
		{"a single server", func(*settings) {}, settings.replication, driver.Fine},
		{"synchronous standbys", func(s *settings) { s.standbys, s.replicas = "ANY 1 (*)", 2 }, settings.replication, driver.Fine},
		{"asynchronous standbys", func(s *settings) { s.replicas = 1 }, settings.replication, driver.Warning},
		{"standbys that nobody waits for", func(s *settings) { s.standbys, s.commits = "*", "local" }, settings.replication, driver.Warning},
		{"fsync", func(s *settings) { s.fsync = "off" }, settings.durability, driver.Failure},
		{"synchronous_commit", func(s *settings) { s.commits = "off" }, settings.durability, driver.Warning},
		{"sound", func(*settings) {}, settings.durability, driver.Fine},
		{"full_page_writes", func(s *settings) { s.fullPages = "off" }, settings.pages, driver.Warning},
		{"a standby", func(s *settings) { s.recovery = true }, settings.server, driver.Failure},
		{"read-only", func(s *settings) { s.readOnly = true }, settings.server, driver.Failure},
		{"an old server", func(s *settings) { s.version = 130012 }, settings.server, driver.Warning},
		{"no schema and no right", func(s *settings) { s.schema, s.create = false, false }, settings.rights, driver.Failure},
	} {
		s := settings{version: 160004, name: "16.4", fsync: "on", fullPages: "on", commits: "on", schema: true, create: true}
		row.change(&s)
		f := row.in(s)
		require.Equal(t, row.grade, f.Grade, row.name)
		require.Equal(t, row.grade != driver.Fine, f.Remedy != "", row.name)
	}
}
