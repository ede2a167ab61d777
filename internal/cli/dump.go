package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A dumping is one dump command.
type dumping struct {
	app        *app
	collection string
	log        bool
	lines      int
	out        *bufio.Writer
	enc        *json.Encoder
}

func (a *app) dumpCommand() *cobra.Command {
	d := dumping{app: a}
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Print every entry, or every commit, as JSON lines",
		Long: `Dump prints the entries of the newest revision, one JSON object a line, ordered
by collection and key; with --log every commit instead, oldest first, without
keeping more than one of them in memory. It writes nothing and needs no token.

The first line says what is dumped and of which revision and token, and with
--log behind which revision it begins: up to there the log was compacted, and
what that came to is among the entries only. The last line is {"end":true,"lines":N}, so that a dump that was cut short can be told. Names,
keys and values are text where they are UTF-8; where not, they are in base64
under the same name with _base64 behind it: {"key_base64":"/w==","value":"v"}.
--timeout is how long the store may take for one more line.`,
		Example: `  fencepost dump > entries.jsonl
  fencepost dump --collection accounts | jq -r 'select(.key) | .key'
  fencepost dump --log | jq -c 'select(.token == "g7.e41")'`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error { return a.withReadStore(ctx, d.run) }),
	}
	cmd.Flags().StringVar(&d.collection, "collection", "", "only the collection `NAME`")
	cmd.Flags().BoolVar(&d.log, "log", false, "print commits instead of entries")
	return cmd
}

// A dumped is the first line.
type dumped struct {
	Dump     string       `json:"dump"` // entries or log
	Store    string       `json:"store"`
	After    *uint64      `json:"after,omitempty"` // of a log: its commits are above this revision
	Revision uint64       `json:"revision"`        // of the newest commit that is surely in it
	Token    *fence.Token `json:"token"`           // null: nobody has claimed yet
}

// An ended is the last line.
type ended struct {
	End   bool `json:"end"`
	Lines int  `json:"lines"` // between the first and this one
}

// An entry is one entry, or what a commit does to one.
type entry map[string]any

func (e entry) set(name string, raw []byte) {
	if utf8.Valid(raw) {
		e[name] = string(raw)
		return
	}
	e[name+"_base64"] = base64.StdEncoding.EncodeToString(raw)
}

func entryOf(c catalog.Change) entry {
	e := entry{}
	e.set("collection", []byte(c.Collection))
	e.set("key", []byte(c.Key))
	if c.Delete {
		e["delete"] = true
		return e
	}
	e.set("value", c.Value)
	return e
}

// A commit is one commit of the log.
type commit struct {
	Revision uint64      `json:"revision"`
	ID       driver.ID   `json:"id"`
	Token    fence.Token `json:"token"`
	Changes  []entry     `json:"changes"`
}

func (d *dumping) run(ctx context.Context, store driver.Store) error {
	d.out = bufio.NewWriter(d.app.env.Stdout)
	d.enc = json.NewEncoder(printable{d.out})
	d.enc.SetEscapeHTML(false)
	dump := d.entries
	if d.log {
		dump = d.commits
	}
	if err := dump(ctx, store); err != nil {
		return errors.Join(err, d.out.Flush())
	}
	if err := d.enc.Encode(ended{End: true, Lines: d.lines}); err != nil {
		return err
	}
	return d.out.Flush()
}

func (d *dumping) begin(kind string, store driver.Store, head driver.Head, after *uint64) error {
	first := dumped{Dump: kind, Store: store.String(), After: after, Revision: head.Revision}
	if !head.IsZero() {
		first.Token = &head.Claim.Token
	}
	return d.enc.Encode(first)
}

func (d *dumping) line(v any) error {
	d.lines++
	return d.enc.Encode(v)
}

// entries prints those of one revision, which are all in memory.
func (d *dumping) entries(ctx context.Context, store driver.Store) error {
	return catalog.Snapshot(ctx, store, d.app.config(d.app.timeout), func(head driver.Head, r *catalog.Reader) error {
		if err := d.begin("entries", store, head, nil); err != nil {
			return err
		}
		names, err := r.Collections()
		if err != nil {
			return err
		}
		if d.collection != "" {
			names = []string{d.collection}
		}
		for _, name := range names {
			if err := d.scan(r, name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *dumping) scan(r *catalog.Reader, name string) error {
	var failed error
	err := catalog.Bytes(name).Scan(r, "", func(key string, value []byte) bool {
		failed = d.line(entryOf(catalog.Change{Collection: name, Key: key, Value: value}))
		return failed == nil
	})
	return errors.Join(err, failed)
}

// commits prints the log. What counts against the time is how long the store
// takes for one more commit, not how long somebody takes to read them.
func (d *dumping) commits(ctx context.Context, store driver.Store) error {
	var head driver.Head
	var after uint64
	err := bounded(ctx, d.app.timeout, func(ctx context.Context) (err error) {
		if head, err = catalog.ReadHead(ctx, store, d.app.config(d.app.timeout)); err != nil {
			return err
		}
		s, err := catalog.Compacted(ctx, store)
		after = max(s.Revision, 1) - 1
		return err
	})
	if err == nil {
		err = d.begin("log", store, head, &after)
	}
	if err != nil {
		return err
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(d.app.timeout, cancel)
	defer stalled.Stop()
	err = catalog.ReadLog(reading, store, after, func(c catalog.Commit) error {
		stalled.Stop()
		defer stalled.Reset(d.app.timeout)
		return d.commit(c)
	})
	if errors.Is(err, driver.ErrCompacted) {
		return exitcodes.With(fmt.Errorf("%w while it was printed: run the command again", err), exitcodes.Retry)
	}
	if err != nil && reading.Err() != nil && ctx.Err() == nil {
		return exitcodes.With(fmt.Errorf("no further commit from the store within %v: %w", d.app.timeout, err), exitcodes.Retry)
	}
	return err
}

func (d *dumping) commit(c catalog.Commit) error {
	line := commit{Revision: c.Revision, ID: c.ID, Token: c.Token, Changes: []entry{}}
	for _, ch := range c.Changes {
		if d.collection == "" || ch.Collection == d.collection {
			line.Changes = append(line.Changes, entryOf(ch))
		}
	}
	if d.collection != "" && len(line.Changes) == 0 {
		return nil
	}
	return d.line(line)
}
