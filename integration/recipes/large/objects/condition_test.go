package objects_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
)

// One object that is overwritten. Its first line is the token under which it was
// written, and a number that the holder never uses again, so that no content, and so
// no entity tag, ever comes back. A new holder raises the object behind its claim: it
// reads it and writes the same data under its own token, on condition that nobody has
// written meanwhile. From then on a write has the entity tag of the holder's last one
// as its condition, which no older holder knows. The object is never deleted.
type holder struct {
	c     *server
	key   string
	token fence.Token
	tag   string // of the last write; empty: the object is not there
	n     int
}

var (
	blue  = fence.Token{Generation: 7, Epoch: 41}
	green = fence.Token{Generation: 8, Epoch: 42}
)

// text is the object's content. It is longer than what a client sends at once, so
// that a request can be under way.
func (h *holder) text(data string) string {
	h.n++
	return fmt.Sprintf("%v %d\n%s\n%s", h.token, h.n, data, strings.Repeat(" ", 1<<18))
}

func parse(text string) (t fence.Token, data string, err error) {
	lines := strings.SplitN(text, "\n", 3)
	if len(lines) < 3 {
		return fence.Token{}, "", errors.New("the object has no first line")
	}
	t, err = fence.Parse(strings.Fields(lines[0] + " ")[0])
	return t, lines[1], err
}

// raise makes the object this holder's, and returns what it held.
func (h *holder) raise(ctx context.Context) (data string, err error) {
	for range 10 {
		var current fence.Token
		text, tag, err := h.c.get(ctx, h.key)
		var none *types.NoSuchKey
		switch {
		case errors.As(err, &none):
			tag = ""
		case err != nil:
			return "", err
		default:
			if current, data, err = parse(text); err != nil {
				return "", err
			}
		}
		if h.token.Compare(current) < 0 {
			return "", &fence.Error{Held: h.token, Current: current, Guard: "objects " + h.key}
		}
		mine := h.text(data)
		if h.tag, err = h.c.put(ctx, h.key, strings.NewReader(mine), len(mine), true, tag); err == nil || !errors.Is(err, errRefused) {
			return data, err
		}
	}
	return "", errors.New("others write all the time")
}

// write replaces the data.
func (h *holder) write(ctx context.Context, data string) error {
	text := h.text(data)
	return h.writeBody(ctx, text, strings.NewReader(text))
}

// writeBody is write for a request of which a test holds back the end.
func (h *holder) writeBody(ctx context.Context, text string, body io.Reader) error {
	tag, err := h.c.put(ctx, h.key, body, len(text), true, h.tag)
	if err == nil {
		h.tag = tag
		return nil
	}
	if !errors.Is(err, errRefused) {
		return err
	}
	now, tag, getErr := h.c.get(ctx, h.key)
	if getErr != nil {
		return errors.Join(err, getErr)
	}
	if now == text { // an answer was lost
		h.tag = tag
		return nil
	}
	current, _, parseErr := parse(now)
	if parseErr != nil || h.token.Compare(current) >= 0 {
		return errors.Join(err, parseErr)
	}
	return &fence.Error{Held: h.token, Current: current, Guard: "objects " + h.key}
}

func TestAConditionalPutRefusesAStaleWrite(t *testing.T) {
	t.Parallel()
	c, ctx := startServer(t), t.Context()
	old, next := &holder{c: c, key: "state", token: blue}, &holder{c: c, key: "state", token: green}
	_, err := old.raise(ctx)
	require.NoError(t, err)
	text, before := old.text("older"), old.tag
	require.NoError(t, old.writeBody(ctx, text, strings.NewReader(text)))
	old.tag = before // as if the answer had been lost
	require.NoError(t, old.writeBody(ctx, text, strings.NewReader(text)), "the same again is found to have landed")
	data, err := next.raise(ctx)
	require.NoError(t, err)
	require.Equal(t, "older", data)
	err = old.write(ctx, "stale")
	require.Equal(t, &fence.Error{Held: blue, Current: green, Guard: "objects state"}, err)
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	_, err = old.raise(ctx)
	require.ErrorIs(t, err, fence.ErrFenced)
	_, err = next.raise(ctx)
	require.NoError(t, err, "again")
	require.NoError(t, next.write(ctx, "newer"))
}

// Without the number, the object that has its old data again would have its old entity
// tag again, on which a request rests that a proxy has kept.
func TestAWriteThatIsDeliveredOnceMoreIsRefusedThoughOlderDataAreBack(t *testing.T) {
	t.Parallel()
	c, ctx := startServer(t), t.Context()
	h := &holder{c: c, key: "state", token: blue}
	_, err := h.raise(ctx)
	require.NoError(t, err)
	require.NoError(t, h.write(ctx, "first"))
	kept, condition := h.text("second"), h.tag
	require.NoError(t, h.writeBody(ctx, kept, strings.NewReader(kept)))
	require.NoError(t, h.write(ctx, "first"))
	_, err = c.put(ctx, h.key, strings.NewReader(kept), len(kept), true, condition)
	require.ErrorIs(t, err, errRefused)
}

// The recipe rests on this alone.
func TestOfManyConditionalPutsAtOnceOneWins(t *testing.T) {
	t.Parallel()
	c, ctx := startServer(t), t.Context()
	for round := range 10 {
		key, tag, err := fmt.Sprint("race ", round%5), "", error(nil)
		if round >= 5 {
			_, tag, err = c.get(ctx, key)
			require.NoError(t, err)
		}
		var won atomic.Int64
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				text := fmt.Sprint(round, " ", i)
				if _, err := c.put(ctx, key, strings.NewReader(text), len(text), true, tag); err == nil {
					won.Add(1)
				} else if !errors.Is(err, errRefused) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, won.Load())
	}
}
