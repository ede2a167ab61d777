package leader_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

func TestAHolderThatIsStoppedIsFencedLongBeforeAHandoverMayTake(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	blue := begin(t, path, adminVar+"=127.0.0.1:0")
	blue.leads()
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer store.Close()
	require.NotEmpty(t, signOfLife(t, store).Admin)
	cfg := config(2)
	cfg.Poll, cfg.HandoverTimeout, cfg.AcknowledgeTimeout = 5*time.Millisecond, time.Hour, 50*time.Millisecond
	green := start(t, store, cfg)
	green.reached(t, leader.ReadyToPromote)
	require.NoError(t, blue.cmd.Process.Signal(syscall.SIGSTOP))
	_, err = leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
	require.NoError(t, err)
	green.reached(t, leader.Leading)
	blue.kill()
	require.NoError(t, green.end(t))
}

// An older build does not say that it acknowledges, and answers once its work has
// ended.
func TestAHolderOfAnOlderBuildGetsTheTimeOfAHandoverToAnswer(t *testing.T) {
	t.Parallel()
	store := memory.New()
	old, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	claim := old.Claim()
	answered := make(chan fence.Token, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/handover") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		timer := time.NewTimer(100 * time.Millisecond) // its work ends, long after AcknowledgeTimeout
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
		head, err := store.Head(r.Context())
		if err != nil {
			return
		}
		answered <- head.Claim.Token
		h := hmac.New(sha256.New, claim.ID[:])
		_, _ = fmt.Fprintf(h, "holds %q %q %q", r.URL.Query().Get("nonce"), r.URL.Path, "2")
		_, _ = fmt.Fprintf(w, `{"proof":%q,"revision":%d}`+"\n", hex.EncodeToString(h.Sum(nil)), head.Revision)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	defer server.CloseClientConnections()
	_, err = catalog.UpdateNote(t.Context(), catalog.NewBoard(store, catalog.Config{}), "holder", func(b *map[string]any) error {
		*b = map[string]any{
			"claim": claim.ID, "token": claim.Token, "seq": 1, "at": time.Now(), "admin": "", "left": false,
			"peer": server.Listener.Addr().String(),
		}
		return nil
	})
	require.NoError(t, err)
	cfg := called(2)
	cfg.AcknowledgeTimeout, cfg.HandoverTimeout = time.Millisecond, time.Hour
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.Equal(t, claim.Token, <-answered)
	green.reached(t, leader.Leading)
	require.ErrorIs(t, old.Confirm(t.Context()), fence.ErrSuperseded)
	require.ErrorIs(t, old.Close(), fence.ErrSuperseded)
	require.NoError(t, green.end(t))
}
