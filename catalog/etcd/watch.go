package etcd

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Watch implements [driver.Watcher]. It wakes after every write to head and
// board, and after nothing else: the range from board/ to head leaves out log/
// and payload/, so that no payload comes along.
//
// While the connection is broken the client connects anew by itself and then
// tells what it missed; a member without a leader ends the watch.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	return s.watch(ctx, "watch", s.keys.board(""), s.keys.end()+"\x00", func(clientv3.WatchResponse) { wake() })
}

// WatchClaims implements [driver.ClaimWatcher]: claims alone write the token. It
// wakes after a write to the record of losses too.
func (s *Store) WatchClaims(ctx context.Context, wake func()) error {
	return s.watch(ctx, "watch", s.keys.token(), s.keys.losses()+"\x00", func(clientv3.WatchResponse) { wake() })
}

// watch tries twice: a stream keeps the user's token that it began with, and all
// watches of a client share one, so that a token which is no longer good can
// hinder a watch that has come later. It then begins another stream. It follows the
// home, and misses nothing on the way.
func (s *Store) watch(ctx context.Context, op, from, to string, each func(clientv3.WatchResponse)) error {
	w := watching{from: from, to: to, each: each}
	for again := false; ; {
		stream := s.number.Load()
		moved, err := w.on(ctx, s, stream)
		switch {
		case moved:
		case outdated(err) && !again:
			again = true
			s.number.CompareAndSwap(stream, stream+1)
		default:
			return s.fail(op, err, read)
		}
	}
}

// outdated reports whether a watch was refused over the token of its stream.
func outdated(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// watching is a watch on a range of keys.
type watching struct {
	from, to string
	next     int64 // the revision of the store from which on nothing was told; 0 at the beginning
	each     func(clientv3.WatchResponse)
}

// on watches on the stream of a number, since the client has one for each set of
// metadata. It reports whether it ended because the home has moved.
func (w *watching) on(ctx context.Context, s *Store, stream int64) (moved bool, err error) {
	home, watch, end := s.cluster.stream(ctx)
	defer end()
	defer context.AfterFunc(s.root, end)()
	session, err := home.dial(watch)
	if err == nil {
		numbered := metadata.AppendToOutgoingContext(watch, "fencepost-stream", strconv.FormatInt(stream, 10))
		err = w.follow(session.Watch(clientv3.WithRequireLeader(numbered), w.from,
			clientv3.WithRange(w.to), clientv3.WithCreatedNotify(), clientv3.WithRev(w.next)))
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case s.root.Err() != nil:
		return false, errClosed
	}
	return watch.Err() != nil, home.explain(err)
}

func (w *watching) follow(responses clientv3.WatchChan) error {
	for resp := range responses {
		if err := resp.Err(); err != nil {
			return whyRefused(err)
		}
		w.next = resp.Header.Revision + 1
		w.each(resp)
	}
	return errWatchEnded
}

// whyRefused returns why a server refused a watch as etcd's own error, of which the
// client has kept the text alone.
func whyRefused(err error) error {
	if _, text, found := strings.Cut(err.Error(), " desc = "); found && status.Code(err) == codes.Unknown {
		return rpctypes.Error(errors.New(text))
	}
	return typed(err)
}
