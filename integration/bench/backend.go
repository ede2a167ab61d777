package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
)

// workers is how many clients there are at full load.
const workers = 64

// Key and value of an entry and of a raw row are 232 bytes together.
const (
	keySize   = 32
	valueSize = 200
)

// A backend is one store, raw and ours side by side.
type backend interface {
	name() string

	// open returns a catalog's store, with connections of its own.
	open(ctx context.Context, catalog string) (driver.Store, error)

	// url names a catalog's store to other programs.
	url(catalog string) string

	// raw connects to an empty table of its own.
	raw(ctx context.Context, table string) (raw, error)

	// syncs counts what grows by one or more with each synced commit. A server
	// may be late to tell, and do so at the next commit: nudge makes one.
	syncs(ctx context.Context, catalog string, nudge func() error) (int64, error)

	close()
}

// raw is the store without us, by prepared statements. Worker w has row w and
// connection w, as far as the store has many.
type raw interface {
	write(ctx context.Context, worker int, value []byte) error
	read(ctx context.Context, worker int) error

	// fill adds n rows, and scan reads all rows of the table, each into
	// memory of its own.
	fill(ctx context.Context, n int) error
	scan(ctx context.Context) (rows int, err error)

	close()
}

func newBackend(name, dir string) (backend, error) {
	switch name {
	case "sqlite":
		return newSQLite(dir)
	case "postgres":
		return newPostgres()
	case "etcd":
		return newEtcd()
	default:
		return nil, fmt.Errorf("no store %q: want sqlite, postgres or etcd", name)
	}
}

// key returns the key of entry n.
func key(n int) string { return fmt.Sprintf("%0*d", keySize, n) }

// value returns the value of entry n: each n has its own, which no compression
// makes smaller.
func value(n uint64) []byte {
	b := make([]byte, 0, valueSize)
	for i := range uint64(valueSize / 8) {
		b = binary.LittleEndian.AppendUint64(b, mix(n<<8+i))
	}
	return b
}

// mix is the finaliser of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
