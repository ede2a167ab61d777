package demo

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/examples/guarded/process"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/reap"
)

// The variables by which a process is started.
const (
	RoleVar   = "GENERATIONS_ROLE" // a server's name, or tool
	dataVar   = "GENERATIONS_DATABASE"
	storeVar  = "GENERATIONS_STORE" // in the same database
	folderVar = "GENERATIONS_FOLDER"
	prefixVar = "GENERATIONS_PREFIX"

	tool = "tool"
)

// keep is how many superseded generations keep what they made, for a rollback.
const keep = 2

// things is all that the generations have made.
type things struct {
	store   driver.Store
	folders folders
	schemas schemas
}

// A place says where they are.
type place struct{ database, store, folder, prefix string }

func (p place) environment() []string {
	return []string{dataVar + "=" + p.database, storeVar + "=" + p.store, folderVar + "=" + p.folder, prefixVar + "=" + p.prefix}
}

func (p place) open(ctx context.Context) (t things, closeAll func(), err error) {
	store, err := postgres.Open(ctx, p.store, postgres.Config{})
	if err != nil {
		return t, nil, err
	}
	conn, err := pgx.Connect(ctx, p.database)
	if err != nil {
		return t, nil, errors.Join(err, store.Close())
	}
	return things{store: store, folders: folders{p.folder}, schemas: schemas{conn, p.prefix}}, func() {
		_ = conn.Close(context.WithoutCancel(ctx)) // nothing is lost with it
		_ = store.Close()                          // nor with this
	}, nil
}

// make makes what a generation needs.
func (t things) make(ctx context.Context, token fence.Token) error {
	return errors.Join(t.folders.make(token), t.schemas.make(ctx, token))
}

// reap removes what is superseded as seen from a token. It does the same in the holder,
// in a tool and in a zombie.
func (t things) reap(ctx context.Context, now fence.Token) (e process.Event, err error) {
	claims, err := catalog.History(ctx, t.store)
	if err != nil {
		return e, err
	}
	led := []generation.Generation{}
	for _, c := range claims {
		led = append(led, c.Token.Generation)
	}
	e = process.Event{What: "reaped", Token: now, Left: map[string]int{}}
	fresh := reap.Policy{Keep: keep, Led: led, MinAge: reap.NoMinAge} // all is seconds old here: a service asks for an age
	for _, pass := range []struct {
		src    reap.Source
		policy reap.Policy
	}{{t.folders.source(), fresh}, {t.schemas.source(), fresh}, {t.folders.rest(), reap.Policy{Keep: reap.KeepNone}}} {
		r, err := reap.Pass(ctx, pass.src, now, pass.policy)
		if err != nil {
			return e, err
		}
		e.Left["deleted"] += r.Deleted
		e.Left["gone"] += r.Gone
		e.Left["failed"] += r.Failed
		e.Left["kept"] += r.Kept.Sum()
	}
	return e, nil
}

// sweep is what many clean-up scripts do: everything that is not mine is old.
func (t things) sweep(ctx context.Context, mine fence.Token) (e process.Event, err error) {
	e = process.Event{What: "reaped", Token: mine, Left: map[string]int{}}
	for _, src := range []reap.Source{t.folders.source(), t.schemas.source()} {
		items, err := src.List(ctx)
		if err != nil {
			return e, err
		}
		for _, i := range items {
			if i.Made.Generation == mine.Generation {
				continue
			}
			if err := src.Delete(ctx, i); err != nil {
				return e, err
			}
			e.Left["deleted"]++
		}
	}
	return e, nil
}

// Process is the main function of a server or tool. It does not return.
func Process() {
	role := os.Getenv(RoleVar)
	exitcodes.Main(func(ctx context.Context) error {
		t, closeAll, err := place{os.Getenv(dataVar), os.Getenv(storeVar), os.Getenv(folderVar), os.Getenv(prefixVar)}.open(ctx)
		if err != nil {
			return err
		}
		defer closeAll()
		commands := make(chan string)
		go process.Listen(commands)
		if role == tool {
			return t.runTool(ctx, commands)
		}
		g, err := strconv.ParseUint(os.Getenv(process.GenerationVar), 10, 63)
		if err != nil {
			return err
		}
		lead, err := leader.New(t.store, leader.Config{Catalog: catalog.Config{
			Generation: generation.Generation(g), Holder: fence.Holder{Name: role},
		}})
		if err != nil {
			return err
		}
		return lead.Run(ctx, func(ctx context.Context, term *leader.Term) error {
			term.Serving()
			return t.serve(ctx, term.Catalog, commands)
		})
	}, exitcodes.Options{Name: role})
}

// runTool reaps once, without a token of its own.
func (t things) runTool(ctx context.Context, commands <-chan string) error {
	process.Say(process.Event{What: "ready"})
	<-commands
	newest, _, err := catalog.NewestToken(t.store, catalog.Config{})(ctx, "")
	if err != nil {
		return err
	}
	return say(t.reap(ctx, newest))
}

// serve is a server's work: it makes what its generation needs, and does what it is told.
//
//	reap     removes what is superseded
//	sweep    removes what is not its own
//
// Before it does either, it waits for another line.
func (t things) serve(ctx context.Context, c *catalog.Catalog, commands <-chan string) error {
	mine := c.Claim().Token
	if err := t.make(ctx, mine); err != nil {
		return err
	}
	process.Say(process.Event{What: "leading", Token: mine})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case command := <-commands:
			process.Say(process.Event{What: "about to", Token: mine})
			<-commands
			do := map[string]func(context.Context, fence.Token) (process.Event, error){"reap": t.reap, "sweep": t.sweep}[command]
			if err := say(do(context.WithoutCancel(ctx), mine)); err != nil { // a zombie does not know yet
				return err
			}
		}
	}
}

func say(e process.Event, err error) error {
	if err == nil {
		process.Say(e)
	}
	return err
}

// there lists the generations that still have a folder or schema.
func (t things) there(ctx context.Context) (folders, schemas []int, err error) {
	for _, l := range []struct {
		src reap.Source
		to  *[]int
	}{{t.folders.source(), &folders}, {t.schemas.source(), &schemas}} {
		items, err := l.src.List(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, i := range items {
			*l.to = append(*l.to, int(i.Made.Generation))
		}
		slices.Sort(*l.to)
	}
	return folders, schemas, nil
}
