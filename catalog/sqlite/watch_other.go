//go:build !linux

package sqlite

import "context"

// Watch implements [driver.Watcher]. What macOS and the BSDs tell by themselves
// (kqueue) needs a descriptor of each file, whose close would drop SQLite's
// locks; so the files are asked for by name.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	return s.wrap("watch", s.whileOpen(ctx, func(ctx context.Context) error { return s.pollWrites(ctx, wake) }), false)
}
