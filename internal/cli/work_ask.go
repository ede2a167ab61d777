package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

// An asking asks the holder of the token to do something.
type asking struct {
	app    *app
	ref    string
	wait   time.Duration
	noWait bool
	unread error // why the answers could not be read; nil: they were
}

const (
	defaultWait = 5 * time.Second
	mostAsked   = 100 // jobs by one command
	longestRef  = 100
)

// askingHelp is what the commands that ask say below what they do.
const askingHelp = `

The holder of the token does it, so that this command needs no token. It ends with
0 once that is durable, with 1 if the holder refused, and with 75 if nobody took
the request within --wait: it stays in the inbox then, and the next holder does it.
A request that is made again with the same --ref is done once.`

// flags adds those of every command that asks.
func (q *asking) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.ref, "ref", "", "`reference` of the request, to make the same one again; default is a new one")
	cmd.Flags().DurationVar(&q.wait, "wait", defaultWait, "how long to wait for the holder's answer")
	cmd.Flags().BoolVar(&q.noWait, "no-wait", false, "end once the request is in the inbox")
}

// run makes requests, once the command line was understood.
func (q *asking) run(cmd *cobra.Command, notes ...work.Note) error {
	if q.ref != "" {
		if err := checkRef(q.ref); err != nil {
			return err
		}
	}
	if q.wait <= 0 {
		return fmt.Errorf("--wait is %v, want more than 0, or --no-wait", q.wait)
	}
	return q.app.action(func(ctx context.Context) error {
		return q.app.withStore(ctx, func(ctx context.Context, store driver.Store) error { return q.ask(ctx, store, notes) })
	})(cmd, nil)
}

// checkRef accepts a reference to which the ID of a job can be added.
func checkRef(ref string) error {
	if work.CheckRef(ref) != nil || len(ref) > longestRef {
		return fmt.Errorf("--ref %q is no reference: want 1 to %d letters, digits, dots, dashes and underscores", clipped(ref), longestRef)
	}
	return nil
}

// A workRequest is one request, and what became of it.
type workRequest struct {
	Ref      string    `json:"ref"`
	Op       string    `json:"op,omitempty"`
	Answered bool      `json:"answered"`
	ID       work.ID   `json:"id,omitempty"` // of the job
	Text     string    `json:"text,omitempty"`
	Error    string    `json:"error,omitempty"` // why the holder refused
	At       time.Time `json:"at,omitzero"`
	Waiting  bool      `json:"waiting"` // it is in the inbox
}

// workRequests is the answer in JSON.
type workRequests struct {
	Store    string        `json:"store"`
	Token    fence.Token   `json:"token,omitzero"`
	Requests []workRequest `json:"requests"`
}

func (q *asking) ask(ctx context.Context, store driver.Store, notes []work.Note) error {
	all := workRequests{Store: store.String()}
	now := time.Now()
	base := q.ref
	if base == "" {
		base = work.NewRef(now)
	}
	for i, n := range notes {
		ref := base
		if len(notes) > 1 {
			ref = fmt.Sprintf("%s.%d", base, n.ID)
		}
		notes[i].By, notes[i].At = q.app.who(), now.UTC().Round(0)
		all.Requests = append(all.Requests, workRequest{Ref: ref, Op: n.Op, ID: n.ID})
	}
	if q.ref != "" { // it may have been done before
		if err := q.app.readWork(ctx, store, func(head driver.Head, r *catalog.Reader) error { all.Token = head.Claim.Token; return all.read(r) }); err != nil {
			return err
		}
	}
	if err := q.post(ctx, store, &all, notes); err != nil {
		return err
	}
	if !q.noWait {
		if err := q.await(ctx, store, &all); err != nil {
			return err
		}
	}
	if err := q.app.show(all, all.print); err != nil {
		return err
	}
	return q.problem(ctx, all)
}

// post puts those that were not answered yet into the inbox.
func (q *asking) post(ctx context.Context, store driver.Store, all *workRequests, notes []work.Note) error {
	board := catalog.NewBoard(store, q.app.config(q.app.timeout))
	for i := range all.Requests {
		r := &all.Requests[i]
		if r.Answered {
			continue
		}
		err := bounded(ctx, q.app.timeout, func(ctx context.Context) error { return work.Post(ctx, board, r.Ref, notes[i]) })
		if errors.Is(err, work.ErrInvalid) || errors.Is(err, work.ErrTooLarge) {
			return exitcodes.WithCode(err, exitcodes.Usage)
		}
		if err != nil {
			return fmt.Errorf("request %s may be in the inbox: make it again with --ref %s: %w", r.Ref, baseRef(r.Ref, len(notes)), err)
		}
		r.Waiting = true
	}
	return nil
}

// baseRef is the reference that the command line takes.
func baseRef(ref string, n int) string {
	if at := strings.LastIndex(ref, "."); n > 1 && at >= 0 {
		return ref[:at]
	}
	return ref
}

// await waits until each has an answer, or the time is over.
func (q *asking) await(ctx context.Context, store driver.Store, all *workRequests) error {
	short, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	cfg := q.app.config(q.app.timeout)
	cfg.ClaimTimeout = q.wait
	f, err := catalog.Follow(short, store, cfg)
	if err != nil {
		if short.Err() != nil { // the requests are in the inbox, whatever became of the look
			q.unread = err
			return nil
		}
		return fmt.Errorf("the request is in the inbox; its answer can't be read: %w", err)
	}
	defer func() { _ = f.Close() }()
	var failed error
	err = f.Wait(short, func(head driver.Head) bool {
		all.Token = head.Claim.Token
		failed = f.View(all.read)
		return failed != nil || all.answered() == len(all.Requests)
	})
	if err != nil && short.Err() != nil {
		err = nil
	}
	return errors.Join(err, failed)
}

// read fills in the answers that there are.
func (all *workRequests) read(r *catalog.Reader) error {
	for i := range all.Requests {
		one := &all.Requests[i]
		reply, found, err := work.ReplyTo(r, one.Ref)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		one.Answered, one.Waiting, one.Text, one.Error, one.At = true, false, reply.Text, reply.Error, reply.At
		if reply.ID != 0 {
			one.ID = reply.ID
		}
	}
	return nil
}

func (all *workRequests) answered() (n int) {
	for _, r := range all.Requests {
		if r.Answered {
			n++
		}
	}
	return n
}

func (all *workRequests) print(w io.Writer) error {
	for _, r := range all.Requests {
		var err error
		switch {
		case r.Error != "":
			_, err = fmt.Fprintf(w, "refused: %s\n", cell(r.Error))
		case r.Answered && r.ID != 0:
			_, err = fmt.Fprintf(w, "job %d: %s\n", r.ID, cell(r.Text))
		case r.Answered:
			_, err = fmt.Fprintln(w, cell(r.Text))
		default:
			_, err = fmt.Fprintf(w, "request %s is in the inbox\n", r.Ref)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// problem says what was refused, or that nobody has answered.
func (q *asking) problem(ctx context.Context, all workRequests) error {
	for _, r := range all.Requests {
		if r.Error != "" {
			return fmt.Errorf("the holder refused: %s", r.Error)
		}
	}
	left := len(all.Requests) - all.answered()
	if q.noWait || left == 0 {
		return nil
	}
	first := all.Requests[0].Ref
	again := baseRef(first, len(all.Requests))
	err := q.untaken(all, left)
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("no longer waiting: %w: the requests stay in the inbox: see fencepost work show --ref %s", context.Cause(ctx), first)
	case q.unread != nil:
		err = fmt.Errorf("the catalog could not be read within %v, so it is not known whether the requests were taken: see fencepost work show --ref %s, or wait for longer with --ref %s: %w",
			q.wait, first, again, q.unread)
	}
	return exitcodes.With(err, exitcodes.Retry)
}

// untaken says that nobody has answered.
func (q *asking) untaken(all workRequests, left int) error {
	holds := "nobody holds the token"
	if !all.Token.IsZero() {
		holds = fmt.Sprintf("the holder of %v does not, or its queue is full", all.Token)
	}
	first := all.Requests[0].Ref
	return fmt.Errorf("nobody has taken %d of %d requests within %v: %s; they stay in the inbox, and the next holder takes them: see fencepost work show --ref %s, or wait again with --ref %s",
		left, len(all.Requests), q.wait, holds, first, baseRef(first, len(all.Requests)))
}

// showRequest shows what became of one request.
func (a *app) showRequest(ctx context.Context, store driver.Store, ref string) error {
	all := workRequests{Store: store.String(), Requests: []workRequest{{Ref: ref}}}
	err := a.readWork(ctx, store, func(head driver.Head, r *catalog.Reader) error { all.Token = head.Claim.Token; return all.read(r) })
	if err != nil {
		return err
	}
	one := &all.Requests[0]
	if !one.Answered {
		err := bounded(ctx, a.timeout, func(ctx context.Context) error {
			note, err := catalog.ReadNote[work.Note](ctx, catalog.NewBoard(store, a.config(a.timeout)), work.InboxPrefix+ref)
			one.Op, one.ID, one.Waiting = note.Value.Op, note.Value.ID, note.Version != 0
			return err
		})
		if err != nil {
			return err
		}
	}
	if !one.Answered && !one.Waiting {
		return fmt.Errorf("there is no request %s: it was never made, or its answer is not kept any more", ref)
	}
	return a.show(all, all.print)
}
