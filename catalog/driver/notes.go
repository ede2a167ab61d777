package driver

import "context"

// A NoteBatcher is a Store that reads and removes notes by the batch, for a board
// that holds very many of them. Package catalog does without, by Notes and Post.
type NoteBatcher interface {
	// NotesAfter returns the first notes whose key begins with prefix and is above
	// after, ordered by key: n at most, and fewer if they would have more than
	// [NotesBatch] bytes together, but one at least if there is any. More says that
	// there are further ones. N is 1 or more.
	NotesAfter(ctx context.Context, prefix, after string, n int) (notes []Note, more bool, err error)

	// RemoveNotes removes each of the notes that is still at its version, and leaves
	// the others as they are. Their keys are different ones; their values don't
	// matter. After an error some of them may have been removed.
	RemoveNotes(ctx context.Context, notes []Note) error
}

// NotesBatch is how many bytes of values a [NoteBatcher] returns at most, unless one
// note alone has more.
const NotesBatch = 8 << 20

// CutNotes returns what NotesAfter returns of notes that are ordered by key, some of
// which may not be above after.
func CutNotes(notes []Note, after string, n int) (cut []Note, more bool) {
	size := 0
	for _, note := range notes {
		if note.Key <= after {
			continue
		}
		size += len(note.Value)
		if len(cut) == n || len(cut) > 0 && size > NotesBatch {
			return cut, true
		}
		cut = append(cut, note)
	}
	return cut, false
}
