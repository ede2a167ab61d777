package fence

import "context"

// A Register is a store of a service's other than its catalog's, such as the
// database of its rows if the catalog is in etcd. Its guards refuse every token
// below the one that it holds, and it only ever rises. A new holder raises it before
// its work begins.
type Register interface {
	// String names the store for people. It never holds a secret.
	String() string

	// Prove returns nil if Raise would succeed now, or would only have to wait for
	// writes in flight. It changes nothing, and keeps no writer waiting for longer
	// than a moment.
	Prove(ctx context.Context, t Token) error

	// Raise has the store refuse every token below t, and returns once no write under
	// such a token can land any more. It may be called again. An error that holds an
	// *[Error] means that the store holds a higher token.
	Raise(ctx context.Context, t Token, by Holder) error
}
