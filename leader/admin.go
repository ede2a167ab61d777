package leader

import (
	"context"
	"fmt"
	"net/http"

	"github.com/fencepost/fencepost/leader/internal/admin"
)

// Handler returns the admin API, to be served under an address of the
// application's. It refuses requests that do not come from this host. What
// processes ask each other is answered there too.
func (l *Leader) Handler() http.Handler {
	return admin.Handler(admin.Process[Status, Intent]{
		Generation: l.cfg.Catalog.Generation,
		Status:     l.Status,
		Health:     Status.health,
		Promote:    l.promoteByAPI,
		Abort: func(ctx context.Context, o admin.Order) (Intent, error) {
			return Abort(ctx, l.store, l.cfg.boardConfig(), o.Generation, AbortOptions{By: theAPI, Reason: o.Reason})
		},
		StepDown: func(ctx context.Context, o admin.Order) error {
			return l.StepDown(ctx, StepDownOptions{Reason: o.Reason, Force: o.Force})
		},
		Prefer:  func(notToLead bool) { l.PreferNotToLead(notToLead) },
		Refused: refusal,
	}, l.peers.Register)
}

// theAPI is who asked, for people.
const theAPI = "the admin API"

func (l *Leader) promoteByAPI(ctx context.Context, o admin.Order) (Intent, error) {
	intent, err := promote(ctx, l.store, l.cfg.boardConfig(), o.Generation, PromoteOptions{By: theAPI, Reason: o.Reason, Force: true})
	if err == nil {
		l.nudge()
	}
	return intent.Value, err
}

// health is what probes are told.
func (s Status) health() admin.Health {
	return admin.Health{
		Alive:   s.Phase != Failed,
		Standby: s.Ready,
		Leader:  s.Serving,
		Line:    fmt.Sprintf("%v: %s", s.Phase, s.Reason),
	}
}

// nudge has the candidate look at the board at once.
func (l *Leader) nudge() {
	select {
	case l.promoted <- struct{}{}:
	default: // it is going to look
	}
}
