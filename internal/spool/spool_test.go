package spool

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPutNeverWaitsForADeliveryAndTheNewestItemsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type delivered struct{ item, dropped int }
		var got []delivered
		reads := make(chan struct{})
		q := New(3, func(item, dropped int) {
			<-reads
			got = append(got, delivered{item, dropped})
		})
		q.Put(0)
		synctest.Wait() // 0 is being delivered
		for item := 1; item <= 5; item++ {
			q.Put(item)
		}
		began := time.Now()
		require.False(t, q.Flush(time.Second))
		require.Equal(t, time.Second, time.Since(began))
		close(reads)
		require.True(t, q.Flush(time.Second))
		require.Equal(t, []delivered{{0, 0}, {3, 2}, {4, 0}, {5, 0}}, got)
		q.Put(6)
		require.True(t, q.Flush(time.Second))
		require.Equal(t, delivered{6, 0}, got[4])
	})
}

func TestItemsOfOneGoroutineAreDeliveredInOrder(t *testing.T) {
	var got []int
	q := New(1000, func(item, dropped int) { got = append(got, item) })
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 100 {
				q.Put(g*100 + i)
			}
		})
	}
	wg.Wait()
	require.True(t, q.Flush(time.Minute))
	require.Len(t, got, 400)
	last := map[int]int{0: -1, 1: -1, 2: -1, 3: -1}
	for _, item := range got {
		require.Equal(t, last[item/100]+1, item%100)
		last[item/100]++
	}
}

// A stuck writer takes nothing until it is read.
type stuck struct {
	read chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.read
	return s.Buffer.Write(p)
}

type changing struct{ to string }

func (c *changing) LogValue() slog.Value { return slog.StringValue(c.to) }

func TestALogThatIsNotReadHoldsUpNobodyAndSaysHowManyLinesItLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{read: make(chan struct{})}
		log := Logger(slog.New(slog.NewTextHandler(w, nil)))
		began, who := time.Now(), &changing{to: "blue"}
		log.With("of", "a part").Info("first", "who", who, slog.Group("in", "who", who))
		who.to = "green"
		synctest.Wait()
		for range waitingLines + 7 {
			log.Info("more")
		}
		require.Zero(t, time.Since(began))
		require.False(t, Flush(log, time.Second))
		close(w.read)
		require.True(t, Flush(log, time.Second))
		lines := bytes.Split(bytes.TrimSpace(w.Bytes()), []byte("\n"))
		require.Contains(t, string(lines[0]), "msg=first of=\"a part\" who=blue in.who=blue")
		require.Contains(t, string(lines[1]), "level=WARN msg=\"lines of the log were dropped, since it was not read\" dropped=7")
		require.Len(t, lines, 2+waitingLines)
	})
}

func TestALoggerIsWrappedOnceAndKeepsItsOrder(t *testing.T) {
	var out bytes.Buffer
	log := Logger(slog.New(slog.NewTextHandler(&out, nil)))
	require.Same(t, log, Logger(log))
	part := log.With("part", 1)
	require.Same(t, part, Logger(part))
	log.Info("one")
	part.Info("two")
	log.Info("three")
	require.True(t, Flush(part, time.Minute))
	require.Regexp(t, `(?s)one.*two.*three`, out.String())
	require.True(t, Flush(slog.New(slog.DiscardHandler), 0), "a plain logger holds nothing back")
}

func TestTheLoggerIsAHandlerAsSlogWantsIt(t *testing.T) {
	var out bytes.Buffer
	log := Logger(slog.New(slog.NewJSONHandler(&out, nil)))
	require.NoError(t, slogtest.TestHandler(log.Handler(), func() (results []map[string]any) {
		require.True(t, Flush(log, time.Minute))
		for line := range bytes.Lines(out.Bytes()) {
			var m map[string]any
			require.NoError(t, json.Unmarshal(line, &m))
			results = append(results, m)
		}
		return results
	}))
}

func TestALevelThatIsNotLoggedCostsNoQueue(t *testing.T) {
	log := Logger(slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	require.False(t, log.Enabled(context.Background(), slog.LevelDebug))
}
