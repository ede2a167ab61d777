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

// WatchClaims implements [driver.ClaimWatcher]: claims alone write the token.
func (s *Store) WatchClaims(ctx context.Context, wake func()) error {
	return s.watch(ctx, "watch", s.keys.token(), s.keys.token()+"\x00", func(clientv3.WatchResponse) { wake() })
}

// watch tries twice: a stream keeps the user's token that it began with, and all
// watches of a client share one, so that a token which is no longer good can
// hinder a watch that has come later. It then begins another stream.
func (s *Store) watch(ctx context.Context, op, from, to string, each func(clientv3.WatchResponse)) error {
	stream := s.stream.Load()
	err := s.watchOn(ctx, stream, from, to, each)
	if outdated(err) {
		s.stream.CompareAndSwap(stream, stream+1)
		err = s.watchOn(ctx, s.stream.Load(), from, to, each)
	}
	return s.fail(op, err, read)
}

// outdated reports whether a watch was refused over the token of its stream.
func outdated(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// watchOn watches on the stream of a number: the client has one for each set of
// metadata.
func (s *Store) watchOn(ctx context.Context, stream int64, from, to string, each func(clientv3.WatchResponse)) error {
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	numbered := metadata.AppendToOutgoingContext(ctx, "fencepost-stream", strconv.FormatInt(stream, 10))
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(numbered))
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	for resp := range client.Watch(watch, from, clientv3.WithRange(to), clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			return whyRefused(err)
		}
		each(resp)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.root.Err() != nil:
		return errClosed
	default:
		return errWatchEnded
	}
}

// whyRefused returns why a server refused a watch as etcd's own error, of which the
// client has kept the text alone.
func whyRefused(err error) error {
	if _, text, found := strings.Cut(err.Error(), " desc = "); found && status.Code(err) == codes.Unknown {
		return rpctypes.Error(errors.New(text))
	}
	return typed(err)
}
