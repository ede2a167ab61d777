package driver

import (
	"encoding/json"
	"fmt"

	"github.com/fencepost/fencepost/fence"
)

// MaxPart is the size of the largest part of a snapshot, in bytes. Every store
// takes it.
const MaxPart = 1 << 20

// A Snapshot stands for the log up to a revision: what that log comes to is
// kept in parts beside it. Its encoding is frozen, like that of [Head].
type Snapshot struct {
	ID       ID          `json:"id"`       // of its parts
	Revision uint64      `json:"revision"` // of the newest commit in it
	Commit   ID          `json:"commit"`   // of the newest commit in it
	Token    fence.Token `json:"token"`    // under which that was committed
	Parts    int         `json:"parts"`
}

// IsZero reports whether there is no snapshot.
func (s Snapshot) IsZero() bool { return s.Revision == 0 }

// MarshalSnapshot returns the frozen text form of s.
func MarshalSnapshot(s Snapshot) ([]byte, error) { return json.Marshal(s) }

// UnmarshalSnapshot reads what MarshalSnapshot wrote. Its errors wrap
// [ErrCorrupt].
func UnmarshalSnapshot(text []byte) (Snapshot, error) {
	var s Snapshot
	err := unmarshal(text, &s)
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("%w: not a snapshot: %w", ErrCorrupt, err)
	}
	return s, nil
}

// Check refuses what no snapshot can be.
func (s Snapshot) Check() error {
	if s.ID.IsZero() || s.Commit.IsZero() || s.Revision == 0 || s.Token.IsZero() || s.Parts < 0 {
		return fmt.Errorf("snapshot %v of revision %d, commit %v, token %v, %d parts", s.ID, s.Revision, s.Commit, s.Token, s.Parts)
	}
	return nil
}
