package etcd

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// hostOf returns host and port of a server's URL.
func hostOf(t *testing.T, url string) string {
	t.Helper()
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// ownClient returns a client for a store to close.
func ownClient(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{hostOf(t, url)}, Logger: zap.NewNop()})
	require.NoError(t, err)
	return client
}

func TestASecondClusterBehindTheURLIsFoundBeforeAnythingIsClaimed(t *testing.T) {
	t.Parallel()
	one, two := testetcd.NewServer(t, testetcd.Options{}), testetcd.NewServer(t, testetcd.Options{})
	host, port, err := net.SplitHostPort(hostOf(t, one.URL()))
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	alias := forward(t, "127.0.0.2:"+port, hostOf(t, two.URL()))
	host3, host4 := forward(t, "127.0.0.3:"+port, hostOf(t, one.URL())), forward(t, "127.0.0.4:"+port, hostOf(t, one.URL()))

	inOneList := "etcd://" + hostOf(t, one.URL()) + "," + hostOf(t, two.URL()) + "/catalog"
	behindOneName := "etcd://" + net.JoinHostPort("cluster.test", strconv.Itoa(n)) + "/catalog"
	for _, test := range []struct {
		url       string
		addresses []string         // of the name
		own       *testetcd.Server // to which the store itself speaks
	}{
		{url: inOneList},
		{url: behindOneName, addresses: []string{host, alias}, own: one},
		{url: behindOneName, addresses: []string{host, host3, host4}, own: two},
	} {
		s, err := Open(t.Context(), test.url, Config{})
		require.NoError(t, err)
		if test.own != nil {
			s.cluster.lookup = func(context.Context, string) ([]string, error) { return test.addresses, nil }
			client := ownClient(t, test.own.URL()) // the name is none of the system's
			s.cluster.members[0].session = &session{client}
		}
		_, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		if test.own == nil {
			require.ErrorIs(t, err, errClusters)
		} else {
			require.ErrorIs(t, err, driver.ErrTwoWon, "%v", test.addresses)
		}
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.NoError(t, s.Close())
	}
	for _, server := range []*testetcd.Server{one, two} {
		left, err := testetcd.Client(t, server.URL()).Get(t.Context(), "catalog/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		require.NoError(t, err)
		for _, kv := range left.Kvs {
			require.Equal(t, "catalog/board/store check", string(kv.Key), "a scratch place, or a claim, was left")
		}
	}
}

// forward passes connections to one address on to another, and returns the host
// of the first.
func forward(t *testing.T, from, to string) string {
	t.Helper()
	ln, err := net.Listen("tcp", from)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() }) // no test ends by that
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go pass(in, to)
		}
	}()
	host, _, err := net.SplitHostPort(from)
	require.NoError(t, err)
	return host
}

func pass(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { _, _ = out.(*net.TCPConn).ReadFrom(in); _ = out.Close() }()
	_, _ = in.(*net.TCPConn).ReadFrom(out)
}

func TestAnAddressThatDoesNotAnswerIsLeftOutOfACheck(t *testing.T) {
	t.Parallel()
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // the kernel answers, and nobody else
	require.NoError(t, err)
	defer deaf.Close()
	url := testetcd.URL(t)
	s, err := Open(t.Context(), "etcd://"+hostOf(t, url)+",127.0.0.1:1,"+deaf.Addr().String()+"/"+testetcd.Prefix(t, url), Config{})
	require.NoError(t, err)
	defer s.Close()
	proof, err := catalog.Prove(t.Context(), s, catalog.Config{StoreTimeout: 10 * time.Second})
	require.NoError(t, err)
	require.Contains(t, proof.Ways, "etcd://"+hostOf(t, url)+"/"+testetcd.Prefix(t, url))
	for _, way := range proof.Ways {
		require.NotEqual(t, "etcd://127.0.0.1:1/"+testetcd.Prefix(t, url), way)
		require.NotEqual(t, "etcd://"+deaf.Addr().String()+"/"+testetcd.Prefix(t, url), way)
	}
}

func TestWhatADeadProcessLeftOfACheckIsRemovedByTheNext(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	client, prefix := testetcd.Client(t, url), testetcd.Prefix(t, url)
	s, err := Open(t.Context(), url, Config{})
	require.NoError(t, err)
	defer s.Close()
	const expired = "5f000000-0123456789abcdef"
	kept := []string{"/scratch/" + driver.NewScratchName() + "/head", "/scratch/by hand/head"}
	for _, key := range append(kept, "/scratch/"+expired+"/head", "/scratch/"+expired+"/log/1") {
		_, err := client.Put(t.Context(), prefix+key, "x")
		require.NoError(t, err)
	}
	_, err = catalog.Prove(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	left, err := client.Get(t.Context(), prefix+"/scratch/", clientv3.WithPrefix())
	require.NoError(t, err)
	var names []string
	for _, kv := range left.Kvs {
		names = append(names, strings.TrimPrefix(string(kv.Key), prefix))
	}
	require.ElementsMatch(t, kept, names)
}

func TestAPlaceOfADeadProcessIsRemovedOnceAndNothingElseIs(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	client, prefix := testetcd.Client(t, url), testetcd.Prefix(t, url)
	s, err := Open(t.Context(), url, Config{})
	require.NoError(t, err)
	defer s.Close()
	for _, key := range []string{"/scratch/5f000000-0123456789abcdef/head", "/scratch/5f000000-0123456789abcdef/log/1", "/scratch/by hand/head", "/head"} {
		_, err := client.Put(t.Context(), prefix+key, "x")
		require.NoError(t, err)
	}
	left, err := s.Left(t.Context())
	require.NoError(t, err)
	require.Len(t, left, 1)
	for _, want := range []bool{true, false} {
		removed, err := s.RemoveLeft(t.Context(), left[0])
		require.NoError(t, err)
		require.Equal(t, want, removed)
	}
	for _, name := range []string{"by hand", "", "../head", driver.NewScratchName()} {
		_, err := s.RemoveLeft(t.Context(), driver.Leftover{Kind: driver.ScratchPlace, Name: name, Made: left[0].Made})
		require.ErrorIs(t, err, errMisuse)
	}
	resp, err := client.Get(t.Context(), prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.EqualValues(t, 2, resp.Count)
}
