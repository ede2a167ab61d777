package objects_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/orders"
)

// A way is how a holder makes an object its own, looks before a write, and writes.
type way struct {
	raise, look func(ctx context.Context, h *holder) error
	text        func(h *holder, data string) string
	write       func(ctx context.Context, h *holder, text string, body io.Reader) error
}

func guarded() way {
	return way{
		raise: func(ctx context.Context, h *holder) error { _, err := h.raise(ctx); return err },
		look:  func(context.Context, *holder) error { return nil },
		text:  (*holder).text,
		write: func(ctx context.Context, h *holder, text string, body io.Reader) error {
			return h.writeBody(ctx, text, body)
		},
	}
}

// looking compares the entity tag in a step of its own.
func looking() way {
	w := guarded()
	w.look = func(ctx context.Context, h *holder) error {
		_, tag, err := h.c.get(ctx, h.key)
		if err == nil && tag != h.tag {
			err = errors.New("stale")
		}
		return err
	}
	w.write = func(ctx context.Context, h *holder, text string, body io.Reader) error {
		_, err := h.c.put(ctx, h.key, body, len(text), false, "")
		return err
	}
	return w
}

// beside has the token elsewhere than in the content, such as in the object's
// metadata: what a raise writes has the same entity tag as before.
func beside() way {
	w := guarded()
	w.text = func(_ *holder, data string) string { return data + "\n\n" + strings.Repeat(" ", 1<<18) }
	w.raise = func(ctx context.Context, h *holder) error {
		text, tag, err := h.c.get(ctx, h.key)
		if err == nil {
			h.tag, err = h.c.put(ctx, h.key, strings.NewReader(text), len(text), true, tag)
		}
		return err
	}
	return w
}

// A request is one that a test holds back in the middle of its body.
type request struct {
	rest io.WriteCloser
	text string
	done chan error
}

// begin sends the first half, unless the server has answered before.
func (w way) begin(ctx context.Context, h *holder, data string) *request {
	text := w.text(h, data)
	body, rest := io.Pipe()
	r := &request{rest: rest, text: text[len(text)/2:], done: make(chan error, 1)}
	go func() {
		r.done <- w.write(ctx, h, text, body)
		_ = body.Close()
	}()
	_, _ = io.WriteString(rest, text[:len(text)/2])
	return r
}

func (r *request) end() error {
	_, _ = io.WriteString(r.rest, r.text)
	_ = r.rest.Close()
	return <-r.done
}

// Every merge of {look, begin, end} of the old holder with {raise, write} of the new
// one. A write is a request whose first half is under way before the other side's
// next step.
func TestInNoOrderOfStepsDoesAConditionalPutAcceptAStaleWrite(t *testing.T) {
	t.Parallel()
	c := startServer(t)
	for name, way := range map[string]struct {
		way
		guards bool
	}{"one's own last entity tag": {guarded(), true}, "a look before": {looking(), false}, "a token beside the content": {beside(), false}} {
		stale, played := 0, 0
		for _, order := range orders.Merges(orders.Steps("old", "look", "begin", "end"), orders.Steps("new", "raise", "write")) {
			played++
			if way.accepts(t, c, fmt.Sprint(name, played), order) {
				stale++
				require.False(t, way.guards, "%s: %v", name, order)
			}
		}
		t.Logf("%s: %d of %d orders accepted a stale write", name, stale, played)
		require.Equal(t, 10, played)
		require.Equal(t, way.guards, stale == 0, name)
	}
}

// accepts plays an order, and reports whether a write of the old holder was accepted
// behind the raise of the new one.
func (w way) accepts(t *testing.T, c *server, key string, order []orders.Step) (stale bool) {
	t.Helper()
	ctx := t.Context()
	old, next := &holder{c: c, key: key, token: blue}, &holder{c: c, key: key, token: green}
	first, err := w.text(old, "first"), error(nil)
	old.tag, err = c.put(ctx, key, strings.NewReader(first), len(first), true, "")
	require.NoError(t, err)
	var looked error
	var under *request
	raised, newest := false, ""
	for _, step := range order {
		switch step.What {
		case "look":
			looked = w.look(ctx, old)
		case "begin":
			if looked == nil {
				under = w.begin(ctx, old, "older")
			}
		case "end":
			if under != nil {
				err := under.end()
				require.True(t, err == nil || raised, "nothing but a raise refuses it: %v", err)
				stale = err == nil && raised
			}
		case "raise":
			require.NoError(t, w.raise(ctx, next))
			raised = true
		case "write":
			newest = w.text(next, "newer")
			err := w.write(ctx, next, newest, strings.NewReader(newest))
			require.True(t, err == nil || stale, "the new holder's write is lost by nothing but a stale one: %v", err)
		}
	}
	now, _, err := c.get(ctx, key)
	require.NoError(t, err)
	return stale || now != newest
}
