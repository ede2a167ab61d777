package work

import (
	"fmt"
	"strings"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// taken are the requests that were acted upon and may still be in the inbox: their
// removal has failed, or its answer was lost with the holder. They are written in the
// commit that acts upon them, so that no holder does so again, however many replies
// have come since. Each commit writes one entry, and removes the entries of which no
// request can be in the inbox any more.
type taken struct {
	entries map[string]string // of each request: the entry that names it
	left    map[string]int    // of each entry: how many of its requests are in entries
	gone    []string          // entries of which none is
}

// load reads what older commits have left.
func (t *taken) load(s catalog.Source) error {
	*t = taken{entries: map[string]string{}, left: map[string]int{}}
	return takenRefs.Scan(s, "", func(entry string, refs []string) bool {
		for _, ref := range refs {
			t.entries[ref] = entry
		}
		t.left[entry] = len(refs)
		return true
	})
}

func (t *taken) has(ref string) bool { return t.entries[ref] != "" }

// saw forgets the requests that a page behind a key would hold and does not: their
// removal has landed.
func (t *taken) saw(after string, page []driver.Note, more bool) {
	there := make(map[string]bool, len(page))
	for _, n := range page {
		there[n.Key] = true
	}
	for ref, entry := range t.entries {
		key := InboxPrefix + ref
		if key <= after || there[key] || more && key > page[len(page)-1].Key {
			continue
		}
		delete(t.entries, ref)
		if t.left[entry]--; t.left[entry] == 0 {
			delete(t.left, entry)
			t.gone = append(t.gone, entry)
		}
	}
}

// write writes an entry for requests, and removes those that are gone.
func (t *taken) write(tx *catalog.Tx, notes []driver.Note) (entry string, err error) {
	n, err := take(tx, takenSequence, 1)
	if err != nil {
		return "", err
	}
	refs := make([]string, len(notes))
	for i, n := range notes {
		refs[i] = strings.TrimPrefix(n.Key, InboxPrefix)
	}
	for _, old := range t.gone {
		if _, err := takenRefs.Delete(tx, old); err != nil {
			return "", err
		}
	}
	entry = fmt.Sprintf("%016d", n)
	return entry, takenRefs.Set(tx, entry, refs)
}

// wrote notes that such a commit has landed.
func (t *taken) wrote(entry string, notes []driver.Note) {
	t.gone = nil
	for _, n := range notes {
		t.entries[strings.TrimPrefix(n.Key, InboxPrefix)] = entry
	}
	t.left[entry] = len(notes)
}
