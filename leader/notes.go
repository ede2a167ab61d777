package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// The keys of the notes that this package keeps on the board. One read of a
// prefix returns a note and what belongs to it.
const (
	intentKey    = "promote"
	changesKey   = "promotions" // what the intent has replaced
	contenderKey = "promote/contender"
	beatKey      = "holder"
	offerKey     = "holder/offer"
)

// An offer is a holder's word that its work has ended, so that a successor may
// claim. The claim is conditional on it: a holder that works again has withdrawn
// it before. An older build reads it as a [Beat], so that a field which both have
// must mean the same.
type offer struct {
	Claim driver.ID             `json:"claim"`        // of the holder
	Token fence.Token           `json:"token"`        // of that claim
	To    generation.Generation `json:"to,omitempty"` // generation.None: to any process of the holder's own
	Open  bool                  `json:"open"`         // false: it was withdrawn
	At    time.Time             `json:"at"`           // by the holder's clock, for people
}

// A contender is the sign of life of a ready process of the promoted generation.
// Lower generations leave the claim to it for as long as it is alive. An older
// build reads it as an [Intent].
type contender struct {
	Of  generation.Generation `json:"of"`
	Seq uint64                `json:"seq"` // grows with each sign of life
	At  time.Time             `json:"at"`  // by the contender's clock, for people
}

// holderNotes are what the board says of the holder.
type holderNotes struct {
	beat  catalog.Posted[Beat]
	offer catalog.Posted[offer]
}

// promotionNotes are what the board says of the generation that shall lead.
type promotionNotes struct {
	intent    catalog.Posted[Intent]
	contender catalog.Posted[contender]
}

func (l *Leader) readHolder(ctx context.Context) (n holderNotes, err error) {
	all, err := l.readNotes(ctx, beatKey)
	if err == nil {
		err = errors.Join(pick(all, beatKey, &n.beat), pick(all, offerKey, &n.offer))
	}
	return n, err
}

func (l *Leader) readPromotion(ctx context.Context) (n promotionNotes, err error) {
	all, err := l.readNotes(ctx, intentKey)
	if err == nil {
		err = errors.Join(pick(all, intentKey, &n.intent), pick(all, contenderKey, &n.contender))
	}
	return n, err
}

// readNotes reads the notes under a prefix once, within the time of a heartbeat.
func (l *Leader) readNotes(ctx context.Context, prefix string) ([]catalog.Posted[json.RawMessage], error) {
	bounded, cancel := context.WithTimeout(ctx, l.cfg.heartbeat())
	defer cancel()
	notes, err := catalog.ReadNotes[json.RawMessage](bounded, l.board, prefix)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = exitcodes.With(err, exitcodes.Retry)
	}
	return notes, err
}

// pick decodes the note at key, if it is there.
func pick[T any](all []catalog.Posted[json.RawMessage], key string, into *catalog.Posted[T]) error {
	into.Key = key
	for _, n := range all {
		if n.Key != key {
			continue
		}
		into.Version = n.Version
		if err := json.Unmarshal(n.Value, &into.Value); err != nil {
			return exitcodes.With(fmt.Errorf("leader: %w: the note %q: %w", driver.ErrCorrupt, key, err), exitcodes.Panic)
		}
	}
	return nil
}
