package driver

import "context"

// A Lister is a Store that can name the other catalogs beside its own: a mistyped name
// looks like a catalog that nobody ever claimed.
type Lister interface {
	// OtherCatalogs returns the names of other catalogs, as [Store].String gives them:
	// [MaxOthers] at most. More says that there are further ones, or may be. It takes a
	// bounded number of reads, writes nothing and creates nothing.
	OtherCatalogs(ctx context.Context) (names []string, more bool, err error)
}

// MaxOthers is how many catalogs a [Lister] names at most.
const MaxOthers = 20
