package leader

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/clock"

	"github.com/fencepost/fencepost/internal/loopback"
)

// maxStatus bounds the answer of a member's admin API, in bytes.
const maxStatus = 1 << 20

// Ask asks a member on this host by its admin API how it is now, and returns m as it
// answers. Asked is false, and m as it was written, if the member has no admin API, is on
// another host, or does not answer, or if another process answers in its place.
func (m Member) Ask(ctx context.Context) (now Member, asked bool) {
	if m.Admin == "" || m.Host == "" || m.Host != clock.Host() || !loopback.Is(m.Admin) {
		return m, false
	}
	s, err := askStatus(ctx, m.Admin)
	if err != nil || s.Member == "" || s.Member != m.ID {
		return m, false
	}
	m.Phase, m.Since, m.Reason, m.Ready, m.Serving = s.Phase, s.Since, cut(s.Reason, maxMemberReason), s.Ready, s.Serving
	m.Token, m.Revision, m.At = s.Token, s.Revision, time.Now()
	return m, true
}

// An answeredStatus is what is needed of a Status, of this build or of another one.
type answeredStatus struct {
	Member   string       `json:"member"`
	Phase    string       `json:"phase"`
	Since    time.Time    `json:"since"`
	Reason   string       `json:"reason"`
	Ready    bool         `json:"ready"`
	Serving  bool         `json:"serving"`
	Token    *fence.Token `json:"token"`
	Revision uint64       `json:"revision"`
}

func askStatus(ctx context.Context, address string) (s answeredStatus, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/leader/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req) // through no proxy, and no redirect
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("leader: %s answers %s", address, resp.Status)
	}
	return s, json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s)
}
