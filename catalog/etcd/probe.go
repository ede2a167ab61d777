package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/gather"
)

var (
	_ driver.Prober     = (*Store)(nil)
	_ driver.RiskTeller = (*Store)(nil)
)

// Probe implements [driver.Prober]. It asks for the members, the alarms, the
// size of the database and whether etcd forgets what was deleted, which needs
// no right to write. What a user may not
// ask is said, and is no error.
func (s *Store) Probe(ctx context.Context) ([]driver.Finding, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, s.fail("probe", err, read)
	}
	var findings []driver.Finding
	for _, ask := range []func(context.Context, *cluster) (driver.Finding, error){probeMembers, probeAlarms, probeSize, s.probeHistory} {
		f, err := ask(ctx, client)
		if errors.Is(typed(err), rpctypes.ErrPermissionDenied) {
			f.Grade, f.Detail, f.Remedy = driver.Warning, "this user may not ask", "ask as a user with the role root"
			err = nil
		}
		if err != nil {
			return nil, s.fail("probe", err, read)
		}
		findings = append(findings, f)
	}
	return findings, nil
}

// Risks implements [driver.RiskTeller]: a single member, whose disk holds the
// only copy, and members that disagree. Whether a member syncs
// (--unsafe-no-fsync) etcd does not tell.
func (s *Store) Risks(ctx context.Context) ([]driver.Finding, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, s.fail("risks", err, read)
	}
	var findings []driver.Finding
	for _, ask := range []func(context.Context, *cluster) (driver.Finding, error){riskOfMembers, riskOfAlarms} {
		f, err := ask(ctx, client)
		switch {
		case errors.Is(typed(err), rpctypes.ErrPermissionDenied):
		case err != nil:
			return nil, s.fail("risks", err, read)
		case f.Grade != driver.Fine:
			findings = append(findings, f)
		}
	}
	return findings, nil
}

// riskOfMembers: two members stop where one is lost, and lose nothing.
func riskOfMembers(ctx context.Context, client *cluster) (driver.Finding, error) {
	voting, err := votingMembers(ctx, client)
	if err != nil || voting > 1 {
		return driver.Finding{Name: "quorum"}, err
	}
	return judgeMembers(voting), nil
}

// riskOfAlarms: a full database takes no writes, and loses nothing.
func riskOfAlarms(ctx context.Context, client *cluster) (driver.Finding, error) {
	resp, err := client.AlarmList(ctx)
	if err != nil {
		return driver.Finding{Name: "alarms"}, err
	}
	for _, a := range resp.Alarms {
		if a.Alarm == etcdserverpb.AlarmType_CORRUPT {
			return judgeAlarms([]etcdserverpb.AlarmType{a.Alarm}), nil
		}
	}
	return driver.Finding{Name: "alarms"}, nil
}

func probeMembers(ctx context.Context, client *cluster) (driver.Finding, error) {
	voting, err := votingMembers(ctx, client)
	if err != nil {
		return driver.Finding{Name: "quorum"}, err
	}
	return judgeMembers(voting), nil
}

func votingMembers(ctx context.Context, client *cluster) (voting int, err error) {
	resp, err := client.MemberList(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range resp.Members {
		if !m.IsLearner {
			voting++
		}
	}
	return voting, nil
}

func judgeMembers(voting int) driver.Finding {
	const least = 3
	f := driver.Finding{Name: "quorum", Detail: fmt.Sprintf("%d voting members: %d may fail", voting, (voting-1)/2)}
	if voting < least {
		f.Grade = driver.Warning
		f.Detail = fmt.Sprintf("%d voting: the loss of one member stops the cluster, or loses its data where it is the only one", voting)
		f.Remedy = "run 3 members or 5"
	}
	return f
}

func probeAlarms(ctx context.Context, client *cluster) (driver.Finding, error) {
	resp, err := client.AlarmList(ctx)
	if err != nil {
		return driver.Finding{Name: "alarms"}, err
	}
	var alarms []etcdserverpb.AlarmType
	for _, a := range resp.Alarms {
		alarms = append(alarms, a.Alarm)
	}
	return judgeAlarms(alarms), nil
}

func judgeAlarms(alarms []etcdserverpb.AlarmType) driver.Finding {
	f := driver.Finding{Name: "alarms", Detail: "none"}
	for _, a := range alarms {
		f.Grade = driver.Failure
		switch a {
		case etcdserverpb.AlarmType_CORRUPT:
			f.Detail, f.Remedy = "CORRUPT: members disagree about their data", "restore the etcd cluster"
			return f
		case etcdserverpb.AlarmType_NOSPACE:
			f.Detail = "NOSPACE: no write is taken"
			f.Remedy = "compact and defragment etcd, raise its quota if need be, then disarm the alarm NOSPACE"
		default:
			f.Detail, f.Remedy = a.String(), "see etcd's documentation of this alarm"
		}
	}
	return f
}

// probeSize asks every endpoint at once, and tells of the fullest.
func probeSize(ctx context.Context, c *cluster) (driver.Finding, error) {
	var size, quota int64
	var version string
	var last error
	for _, a := range c.statuses(ctx) {
		if a.Err != nil {
			last = a.Err
			continue
		}
		version = a.Value.Version
		if a.Value.DbSize >= size {
			size, quota = a.Value.DbSize, a.Value.DbSizeQuota
		}
	}
	if version == "" {
		return driver.Finding{Name: "size"}, last
	}
	f := judgeSize(size, quota)
	f.Detail = "etcd " + version + ", " + f.Detail
	return f, nil
}

// statuses asks every member how it is. One of several that hangs delays the answer
// by a second.
func (c *cluster) statuses(ctx context.Context) []gather.Answer[*clientv3.StatusResponse] {
	if len(c.members) > 1 {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ctx = bounded
	}
	answers := make([]gather.Answer[*clientv3.StatusResponse], len(c.members))
	var asking sync.WaitGroup
	for i, m := range c.members {
		asking.Go(func() {
			answers[i].Value, answers[i].Err = ask(ctx, m, func(ctx context.Context, s *session) (*clientv3.StatusResponse, error) {
				return s.Status(ctx, m.endpoint)
			})
		})
	}
	asking.Wait()
	return answers
}

func judgeSize(size, quota int64) driver.Finding {
	const nearly = 0.8
	f := driver.Finding{Name: "size"}
	if quota <= 0 {
		f.Detail = fmt.Sprintf("the database has %d MiB; the server does not tell its quota", size>>20)
		return f
	}
	used := float64(size) / float64(quota)
	f.Detail = fmt.Sprintf("the database has %d MiB, %.0f%% of its quota of %d MiB", size>>20, 100*used, quota>>20)
	if used > nearly {
		f.Grade, f.Remedy = driver.Warning, "compact and defragment etcd, or raise --quota-backend-bytes: above the quota no write is taken"
	}
	return f
}

// probeHistory asks for the beginning of etcd's history, which an etcd that is
// compacted has forgotten. The server does not tell its settings.
func (s *Store) probeHistory(ctx context.Context, client *cluster) (driver.Finding, error) {
	now, err := client.Get(ctx, s.keys.head(), clientv3.WithCountOnly())
	if err != nil {
		return driver.Finding{Name: "history"}, err
	}
	_, err = client.Get(ctx, s.keys.head(), clientv3.WithRev(1), clientv3.WithCountOnly())
	if forgotten := errors.Is(err, rpctypes.ErrCompacted); forgotten || err == nil {
		return judgeHistory(now.Header.Revision, forgotten), nil
	}
	return driver.Finding{Name: "history"}, err
}

func judgeHistory(revision int64, forgotten bool) driver.Finding {
	const much = 20_000 // revisions: below, nobody misses their space
	f := driver.Finding{Name: "history", Detail: "etcd's history has been compacted"}
	if forgotten {
		return f
	}
	f.Detail = fmt.Sprintf("etcd keeps the history of all its %d revisions", revision)
	if revision > much {
		f.Grade = driver.Warning
		f.Detail += ": what a catalog deletes still takes space"
		f.Remedy = "switch on --auto-compaction-retention, and defragment from time to time"
	}
	return f
}
