// Package peer is what the processes of one service ask each other over HTTP:
// whether the holder of a claim is there, and that it hand over to a successor.
//
// A question carries no authority. Both sides prove by HMAC that they know the
// claim's ID, which stands in the store, and a holder does only what the store
// says too. Safety never rests on an answer: whether a claim succeeds is decided
// by the store.
//
//	GET  /api/leader/presence   one line at once, and one whenever there is news on the board
//	POST /api/leader/handover   one line once the holder has acknowledged, one once its work has
//	                            ended, and an error or the end of the answer if it waits no longer
//	POST /api/leader/progress   204: the successor that the nonce names is still at work
//
// A line is a JSON object; unknown fields and parameters are ignored. The
// parameters are generation, nonce and proof, and of a handover:
//
//	acknowledge=1   the asker knows the line of acknowledgement; it is left out for one that does not
//	migrations=8s   how much longer the handover may take, for a holder that knows no progress
//
// A holder of an older build sends no acknowledgement: its first line comes once
// its work has ended.
package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The paths, and the parameters beside nonce, proof and generation.
const (
	presencePath = "/api/leader/presence"
	handoverPath = "/api/leader/handover"
	progressPath = "/api/leader/progress"

	acknowledgeParam = "acknowledge"
	migrationsParam  = "migrations"
)

// Limits of what is sent.
const (
	maxLine  = 4 << 10 // of an answer, in bytes
	minNonce = 16      // in bytes
)

// Errors that say how a question ended; match them with errors.Is. A refused
// connection matches syscall.ECONNREFUSED, and a time-out net.Error.
var (
	// ErrNotHolder means that the process at the address does not hold the claim.
	ErrNotHolder = errors.New("does not hold the claim that is asked for")

	// ErrNotAcknowledged means that the holder did not answer in time, as if it were
	// stopped.
	ErrNotAcknowledged = errors.New("did not acknowledge the handover")

	// ErrRefused means that the holder does not hand over: it does not serve.
	ErrRefused = errors.New("refuses to hand over")

	// ErrNotPromoted means that the store, as the holder reads it, says nothing of
	// this successor. It was not disturbed.
	ErrNotPromoted = errors.New("is not promoted")

	// ErrBusy means that the holder hands over to another process just now.
	ErrBusy = errors.New("hands over to another process already")

	// ErrResumed means that the holder has ended the handover.
	ErrResumed = errors.New("waits for its successor no longer")
)

// The roles that a proof tells apart.
const (
	asks  = "asks"
	holds = "holds"
)

// proof returns an HMAC of the role, the nonce and what is asked for, keyed by
// the claim's ID.
func proof(claim driver.ID, role, nonce, path, generation string) string {
	h := hmac.New(sha256.New, claim[:])
	_, _ = fmt.Fprintf(h, "%s %q %q %q", role, nonce, path, generation) // never fails: see hash.Hash
	return hex.EncodeToString(h.Sum(nil))
}

// A line is one line of an answer.
type line struct {
	Proof        string `json:"proof,omitempty"` // of the first line only
	Acknowledged bool   `json:"acknowledged,omitempty"`
	Revision     uint64 `json:"revision,omitempty"` // up to which the holder has committed
	Version      int64  `json:"version,omitempty"`  // of the handover's note on the board; 0: none
	Error        string `json:"error,omitempty"`
	Busy         bool   `json:"busy,omitempty"` // of a refusal: ErrBusy
}

// A Paused says how far a holder has come whose work has ended.
type Paused struct {
	Revision uint64 // up to which it has committed
	Version  int64  // of the handover's note on the board; 0: there is none
}
