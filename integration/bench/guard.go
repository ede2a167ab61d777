package main

// guardClients is how many clients write under a guard side by side.
const guardClients = 32

// A guarder is a backend whose store guards the application's own writes.
type guarder interface{ guards(b *bench) error }

// guards measures guarded writes against the same writes without a guard.
func guards(b *bench) error {
	if g, ok := b.backend.(guarder); ok {
		return g.guards(b)
	}
	return nil
}

func (b *bench) clients(op operation) round {
	return func() (timing, error) { return load(b.ctx, guardClients, b.each, op) }
}
