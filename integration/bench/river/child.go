package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

// partVar tells a child what it plays: "post" or "hang", whose queue, and the URL.
const partVar = "FENCEPOST_BENCH_RIVER_PART"

const hanging = 64 // jobs that a child runs when it is killed

// A child is this program again.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (t *trial) child(part string, q queue) (*child, error) {
	cmd := exec.CommandContext(t.ctx, os.Args[0])
	cmd.Env = append(os.Environ(), partVar+"="+strings.Join([]string{part, q.name(), urlOf(q)}, " "))
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return nil, err
	}
	return &child{cmd, in, bufio.NewReader(out)}, nil
}

// play plays a child's part, until its input ends or it is killed.
func play(part string) error {
	words := strings.Split(part, " ")
	if len(words) != 3 {
		return fmt.Errorf("the part %q", part)
	}
	ctx := context.Background()
	if words[0] == "hang" {
		return hang(ctx, words[1], words[2])
	}
	post, err := poster(ctx, words[1], words[2])
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		<-time.After(20*time.Millisecond + rand.N(40*time.Millisecond)) // in no step with what the worker does
		if err := post(time.Now().UnixNano()); err != nil {
			return err
		}
	}
	return nil
}

// poster returns what enqueues one job from a process that runs none.
func poster(ctx context.Context, whose, url string) (func(payload int64) error, error) {
	if whose == "River" {
		r, err := openRiver(ctx, url)
		if err != nil {
			return nil, err
		}
		return func(payload int64) error { _, err := r.insert.Insert(ctx, args{payload}, nil); return err }, nil
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return func(payload int64) error {
		var e pgwork.Enqueued
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
			e, err = pgwork.EnqueueTx(ctx, tx, "main", work.Request{Kind: kind, Payload: binary.BigEndian.AppendUint64(nil, uint64(payload))})
			return err
		})
		if err != nil {
			return err
		}
		return e.Wake(ctx, conn)
	}, nil
}

// hang runs jobs that never return, and says when it runs all.
func hang(ctx context.Context, whose, url string) error {
	var q queue
	var err error
	if whose == "River" {
		q, err = openRiver(ctx, url)
	} else {
		q, err = openOurs(ctx, url)
	}
	if err != nil {
		return err
	}
	var n atomic.Int64
	_, err = q.work(ctx, settings{workers: hanging}, func(context.Context, running) error {
		if n.Add(1) == hanging {
			fmt.Println("running")
		}
		select {}
	})
	if err != nil {
		return err
	}
	select {}
}
