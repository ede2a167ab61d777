package process

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// GenerationVar tells a shop its generation.
const GenerationVar = "SHOP_GENERATION"

// Work is a shop's: it says that it leads, and sells by each command, "sell N" or
// "slowly N", until ctx ends or a sale fails.
func Work(ctx context.Context, token fence.Token, commands <-chan string, sell func(ctx context.Context, n int, slowly bool) error) error {
	Say(Event{What: "leading", Token: token})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case command := <-commands:
			verb, number, _ := strings.Cut(command, " ")
			n, err := strconv.Atoi(number)
			if err == nil {
				err = sell(context.WithoutCancel(ctx), n, verb == "slowly")
			}
			if err != nil {
				return err
			}
		}
	}
}

// Lead starts a shop, promotes it and waits until it leads.
func Lead(ctx context.Context, logs io.Writer, store driver.Store, name string, g int, env ...string) (*Process, fence.Token, error) {
	p, err := Start(ctx, logs, name, append(env, GenerationVar+"="+strconv.Itoa(g))...)
	if err != nil {
		return nil, fence.Token{}, err
	}
	// The demo numbers its shops itself, and does not wait until this one is ready.
	_, err = leader.Promote(ctx, store, catalog.Config{}, generation.Generation(g), leader.PromoteOptions{By: "the demo", Force: true})
	var e Event
	if err == nil {
		e, err = p.Expect("leading")
	}
	if err != nil {
		p.Kill()
		return nil, fence.Token{}, err
	}
	return p, e.Token, nil
}

// NewDatabase creates a database on the PostgreSQL server at a URL, and returns its name
// and URL. The caller drops it.
func NewDatabase(ctx context.Context, server, prefix string) (name, dsn string, drop func() error, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", "", nil, errors.New("the server is named by no URL: want postgres://user@host/database")
	}
	admin, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", "", nil, err
	}
	name = prefix + "_" + strings.ToLower(rand.Text()[:8])
	if _, err := admin.Exec(ctx, "create database "+name); err != nil {
		return "", "", nil, errors.Join(err, admin.Close(ctx))
	}
	u.Path = "/" + name
	return name, u.String(), func() error {
		ctx := context.WithoutCancel(ctx)
		_, err := admin.Exec(ctx, "drop database "+name+" with (force)")
		return errors.Join(err, admin.Close(ctx))
	}, nil
}

// Lines returns a writer for what several processes log, to w.
func Lines(w io.Writer) io.Writer { return &lines{w: w} }

type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
