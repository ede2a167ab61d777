package etcd

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Lister = (*Store)(nil)

const (
	mostSteps  = 100 // reads of two requests each, for one list of other catalogs
	mostNested = 8   // folders of a key that are looked at
)

// OtherCatalogs implements [driver.Lister]: the prefixes with a head and a token, those
// beside its own first. It steps from folder to folder, and so reads a bounded part of a
// cluster that has other keys too.
func (s *Store) OtherCatalogs(ctx context.Context) (names []string, more bool, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, false, s.fail("other catalogs", err, read)
	}
	w := walk{cluster: client, own: s.keys.prefix, found: map[string]bool{}}
	if i := strings.LastIndexByte(s.keys.prefix, '/'); i > 0 {
		beside := s.keys.prefix[:i+1]
		err = w.through(ctx, beside, clientv3.GetPrefixRangeEnd(beside))
	}
	if err == nil {
		err = w.through(ctx, "\x00", "\x00")
	}
	if err != nil {
		return nil, false, s.fail("other catalogs", err, read)
	}
	for _, prefix := range w.prefixes {
		to := s.to
		to.prefix = prefix
		names = append(names, to.String())
	}
	return names, w.more, nil
}

// A walk finds catalogs, up to the limits of a list.
type walk struct {
	*cluster
	own      string // prefix of the catalog that asks
	steps    int
	found    map[string]bool
	prefixes []string
	more     bool // a limit was reached
}

// through walks through the keys from one to another; "\x00" as the other is the end of
// all keys, as etcd has it.
func (w *walk) through(ctx context.Context, from, to string) error {
	for w.steps < mostSteps && !w.more {
		w.steps++
		prefix, next, err := w.next(ctx, from, to)
		if err != nil || next == "" {
			return err
		}
		if prefix != "" && prefix != w.own && !w.found[prefix] {
			if w.more = len(w.prefixes) == driver.MaxOthers; w.more {
				return nil
			}
			w.found[prefix], w.prefixes = true, append(w.prefixes, prefix)
		}
		from = next
		if to != "\x00" && from >= to {
			return nil
		}
	}
	w.more = true
	return nil
}

// next looks at the first key from a key on. It returns the prefix of the catalog
// to which that belongs, if it does, and where to look next: behind that catalog, or
// behind the key's folder; nowhere if there is no such key.
func (w *walk) next(ctx context.Context, from, to string) (prefix, next string, err error) {
	resp, err := w.Get(ctx, from, clientv3.WithRange(to), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	if err != nil || len(resp.Kvs) == 0 {
		return "", "", err
	}
	key := string(resp.Kvs[0].Key)
	folders := foldersOf(key)
	if len(folders) == 0 {
		return "", key + "\x00", nil
	}
	var ops []clientv3.Op
	for _, f := range folders {
		k := keys{f}
		ops = append(ops, clientv3.OpGet(k.head(), clientv3.WithCountOnly()), clientv3.OpGet(k.token(), clientv3.WithCountOnly()))
	}
	both, err := w.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return "", "", err
	}
	for i, f := range folders {
		if both.Responses[2*i].GetResponseRange().Count > 0 && both.Responses[2*i+1].GetResponseRange().Count > 0 {
			return f, clientv3.GetPrefixRangeEnd(f + "/"), nil
		}
	}
	return "", clientv3.GetPrefixRangeEnd(folders[len(folders)-1] + "/"), nil
}

// foldersOf returns the folders that a key lies in, the outermost first.
func foldersOf(key string) (folders []string) {
	for i := range len(key) {
		if key[i] == '/' && i > 0 {
			folders = append(folders, key[:i])
		}
	}
	return folders[:min(len(folders), mostNested):min(len(folders), mostNested)]
}
