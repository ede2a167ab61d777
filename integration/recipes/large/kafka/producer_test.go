// Package kafka_test tries how records in Kafka are guarded, against kfake: it speaks
// Kafka's protocol, with transactions and the epochs of producers, but it is a fake in
// this process and no broker. So these tests show that the recipe is right if a broker
// does what Kafka documents, and not that a broker does.
package kafka_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A resource has one transactional id. InitProducerID raises the id's epoch, ends the
// open transaction of whoever had it before, and refuses that one from then on. But
// the epoch is not the token: whoever comes last wins, and a stopped holder that is
// continued just before its own InitProducerID comes last. So:
//
//  1. A holder calls InitProducerID behind its claim, once.
//  2. Then, and not before, it confirms at the catalog that it still holds the token.
//     If a newer one claimed before that, this holder writes nothing. If a newer one
//     claims later, its InitProducerID comes later too.
//  3. If it is refused although it did not write stale things, an older holder came
//     last and has found out by step 2: it begins again with step 1. If the catalog
//     does not confirm, it ends.
//
// Readers read committed transactions only.
type producer struct {
	addrs []string
	id    string // transactional; empty: none
	cat   *catalog.Catalog
	cl    *kgo.Client
}

const topic = "orders"

// init is step 1.
func (p *producer) init(ctx context.Context) (err error) {
	p.close()
	options := []kgo.Opt{kgo.SeedBrokers(p.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if p.id != "" {
		options = append(options, kgo.TransactionalID(p.id))
	}
	if p.cl, err = kgo.NewClient(options...); err != nil {
		return err
	}
	_, _, err = p.cl.ProducerID(ctx)
	return err
}

func (p *producer) close() {
	if p.cl != nil {
		p.cl.Close()
		p.cl = nil
	}
}

// confirm is step 2.
func (p *producer) confirm(ctx context.Context) error { return p.cat.Confirm(ctx) }

func (p *producer) produce(ctx context.Context, text string) error {
	if p.id != "" {
		if err := p.cl.BeginTransaction(); err != nil {
			return err
		}
	}
	return p.cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(text)}).FirstErr()
}

func (p *producer) commit(ctx context.Context) error {
	if p.id == "" {
		return nil
	}
	return p.cl.EndTransaction(ctx, kgo.TryCommit)
}

// fenced reports whether Kafka refused a producer because another one came later.
func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.InvalidProducerIDMapping)
}

// write is a transaction of one record, with step 3.
func (p *producer) write(ctx context.Context, text string) (err error) {
	for range 3 {
		if err = p.produce(ctx, text); err == nil {
			err = p.commit(ctx)
		}
		if err == nil || !fenced(err) {
			return err
		}
		if err = errors.Join(p.init(ctx), p.confirm(ctx)); err != nil {
			return err
		}
	}
	return err
}

// startKafka starts the fake.
func startKafka(t *testing.T) []string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

func claim(t *testing.T, store *memory.Store, g generation.Generation) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: g})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// committed reads what readers see, up to the record that ends it.
func committed(t *testing.T, addrs []string) (all []string) {
	t.Helper()
	end := &producer{addrs: addrs}
	require.NoError(t, end.init(t.Context()))
	defer end.close()
	require.NoError(t, end.produce(t.Context(), "end"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(t, err)
	defer cl.Close()
	for {
		fetches := cl.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		for _, r := range fetches.Records() {
			if string(r.Value) == "end" {
				return all
			}
			all = append(all, string(r.Value))
		}
	}
}

func TestALaterProducerFencesAnEarlierOneAndEndsItsTransaction(t *testing.T) {
	t.Parallel()
	addrs, store, ctx := startKafka(t), memory.New(), t.Context()
	blue := &producer{addrs: addrs, id: "orders", cat: claim(t, store, 7)}
	defer blue.close()
	require.NoError(t, errors.Join(blue.init(ctx), blue.confirm(ctx)))
	require.NoError(t, blue.write(ctx, "older"))
	require.NoError(t, blue.produce(ctx, "under way"))
	green := &producer{addrs: addrs, id: "orders", cat: claim(t, store, 8)}
	defer green.close()
	require.NoError(t, errors.Join(green.init(ctx), green.confirm(ctx)))
	require.NoError(t, green.write(ctx, "newer"))
	err := blue.commit(ctx)
	require.True(t, fenced(err), "%v", err)
	err = blue.confirm(ctx)
	require.ErrorIs(t, err, fence.ErrSuperseded, "the catalog says why")
	require.Equal(t, []string{"older", "newer"}, committed(t, addrs))
	other := &producer{addrs: addrs, id: "stock", cat: green.cat}
	defer other.close()
	require.NoError(t, other.init(ctx))
	require.NoError(t, green.write(ctx, "newest"), "another resource has an id of its own")
}
