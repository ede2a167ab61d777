package etcd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testlists"
)

func TestEveryEntryHasItsReason(t *testing.T) { testlists.Check(t, Errors()) }

func TestTheTableHasEveryErrorOfOurOwn(t *testing.T) {
	t.Parallel()
	testlists.CheckOwn(t, "github.com/fencepost/fencepost/catalog/etcd", Errors(), "errRecord", "errEnd")
}

func TestTheTableHasEveryErrorOfEtcdsServer(t *testing.T) {
	t.Parallel()
	names := testlists.Source(t, "go.etcd.io/etcd/api/v3/v3rpc/rpctypes").Vars("Err")
	require.GreaterOrEqual(t, len(names), 122)
	require.Empty(t, testlists.Missing(Errors(), names))
	require.Equal(t, []string{"ErrNews"}, testlists.Missing(Errors(), append(names, "ErrNews")), "one more upstream")
	for i, f := range Errors().Families {
		if f.Name != "server" {
			continue
		}
		for j, e := range f.Entries {
			less := Errors()
			less.Families[i].Entries = slices.Delete(less.Families[i].Entries, j, j+1)
			require.Contains(t, testlists.Missing(less, names), e.Code, "without it")
			m := errorTable.Of(fmt.Errorf("wrapped: %w", status.Error(codes.Code(99), e.Name)))
			require.Equal(t, e.Code, m.Code, "by the text on the wire alone")
		}
	}
}

func TestTheTableHasEveryCodeOfGRPC(t *testing.T) {
	t.Parallel()
	names := testlists.Source(t, "google.golang.org/grpc/codes").Numbers("", "")
	delete(names, "_maxCode")
	require.GreaterOrEqual(t, len(names), 16)
	for name, code := range names {
		m := errorTable.Of(status.Error(codes.Code(code), "x"))
		if code == 0 {
			m = byCode().Code("0") // gRPC makes no error of it
		}
		require.Equal(t, driver.Listed, m.Basis, name)
		require.Equal(t, name, m.Entry.Name)
	}
	require.Equal(t, driver.Unlisted, errorTable.Of(status.Error(17, "x")).Basis)
}

func TestTheTableHasEveryErrorOfTheClient(t *testing.T) {
	t.Parallel()
	client := testlists.Source(t, "go.etcd.io/etcd/client/v3")
	require.Empty(t, testlists.Missing(Errors(), slices.Concat(
		testlists.Qualify("clientv3", client.Vars("Err")),
		testlists.Qualify("clientv3", testlists.Exported(client.Types())),
		testlists.Qualify("grpc", testlists.Source(t, "google.golang.org/grpc").Vars("Err")))))
}

// endOf checks what holds for any answer of a server.
func endOf(t testing.TB, listed map[string]bool, code uint32, text string) driver.Basis {
	err := status.Error(codes.Code(code), text)
	if err == nil {
		return driver.Listed // code 0
	}
	m := errorTable.Of(typed(err))
	class, shown := classify(err, sent)
	require.Error(t, shown)
	require.NotEmpty(t, shown.Error())
	switch {
	case listed[text], code <= 16:
		require.Equal(t, driver.Listed, m.Basis, "%d %s", code, text)
	default:
		require.Equal(t, driver.Unlisted, m.Basis, "%d %s", code, text)
		require.Equal(t, exitcodes.Panic, class.Disposition)
	}
	if !listed[text] {
		require.Equal(t, driver.Unknown, class.Outcome, "%d %s", code, text)
	}
	return m.Basis
}

func listed() map[string]bool {
	texts := map[string]bool{}
	for _, e := range byEtcd().Entries {
		texts[e.Name] = true
	}
	return texts
}

func TestNoStatusOfGRPCReachesTheDefaultUnnoticed(t *testing.T) {
	t.Parallel()
	listed := listed()
	var texts []string
	for text := range listed {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	random := rand.New(rand.NewPCG(1, 2))
	count := map[driver.Basis]int{}
	for i := range 100_000 {
		code := random.Uint32N(20)
		if i%10 == 0 {
			code = random.Uint32()
		}
		text := texts[random.IntN(len(texts))]
		switch random.IntN(4) {
		case 0: // a known text, damaged
			at := random.IntN(len(text))
			text = text[:at] + string(rune(random.IntN(0x3000))) + text[at:]
		case 1:
			text = strings.Repeat("etcdserver: ", random.IntN(3)) + fmt.Sprint(random.Uint64())
		}
		count[endOf(t, listed, code, text)]++
	}
	require.NotZero(t, count[driver.Listed])
	require.NotZero(t, count[driver.Unlisted])
}

func FuzzStatus(f *testing.F) {
	listed := listed()
	f.Add(uint32(14), "etcdserver: leader changed")
	f.Add(uint32(99), "")
	f.Add(uint32(4), "context deadline exceeded")
	f.Fuzz(func(t *testing.T, code uint32, text string) { endOf(t, listed, code, text) })
}

func TestATextIsReadBehindAnyWrapping(t *testing.T) {
	t.Parallel()
	require.Empty(t, textOf(errors.New("etcdserver: no leader")))
	require.Equal(t, "etcdserver: no leader", textOf(fmt.Errorf("a: %w", fmt.Errorf("b: %w", rpctypes.ErrGRPCNoLeader))))
}
