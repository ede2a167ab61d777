package driver

// LossesKey is the key under which a store that keeps a catalog's losses in its
// table of notes does so. No note has it: Notes leaves it out, and Post refuses
// it.
const LossesKey = "\x01losses"

// Losses is the record of what a store was found to have lost, beside the head.
// Claims compare it. Its text is package catalog's.
type Losses struct {
	Text    []byte // nil if nothing was ever recorded
	Version int64  // differs after every write; zero if there is no record

	// Place is the server, cluster or file that answered, as far as the store
	// tells: the same text for the same one. It is not stored.
	Place string
}
