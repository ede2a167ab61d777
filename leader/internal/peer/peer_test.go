package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// mine is the claim that the holder of a test holds.
func mine() driver.ID { return driver.ID{1, 2, 3} }

// A playedHolder holds a claim, and hands over as the test says.
type playedHolder struct {
	claim driver.ID
	hand  func(context.Context, *Successor) error

	mu   sync.Mutex
	news chan struct{}
}

func newHolder(hand func(context.Context, *Successor) error) *playedHolder {
	return &playedHolder{claim: mine(), hand: hand, news: make(chan struct{})}
}

func (h *playedHolder) Claim() (driver.ID, bool) { return h.claim, h.claim != driver.ID{} }

func (h *playedHolder) HandOver(ctx context.Context, s *Successor) error { return h.hand(ctx, s) }

func (h *playedHolder) News() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.news
}

func (h *playedHolder) announce() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.news)
	h.news = make(chan struct{})
}

// serve answers for h at the address that it returns.
func serve(t *testing.T, h Holder) (*Server, string) {
	t.Helper()
	s := NewServer(h)
	mux := http.NewServeMux()
	s.Register(mux)
	return s, listen(t, mux)
}

// listen serves h at the address that it returns.
func listen(t *testing.T, h http.Handler) (address string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.Listener.Addr().String()
}

func ask(address string) Ask {
	return Ask{Claim: mine(), Address: address, Generation: 2, Acknowledge: time.Minute}
}

func dial(t *testing.T, address string) (*Conn, error) {
	t.Helper()
	c, err := Dial(t.Context(), time.Minute, mine(), address)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func TestAStandbyHearsOfNewsAndOfTheEndOfTheConnection(t *testing.T) {
	t.Parallel()
	holder := newHolder(nil)
	server, address := serve(t, holder)
	c, err := dial(t, address)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return server.Standbys() == 1 }, time.Minute, time.Millisecond)
	heard := make(chan error)
	go func() {
		for range 2 {
			heard <- c.Wait()
		}
	}()
	holder.announce()
	require.NoError(t, <-heard)
	c.Close()
	require.Error(t, <-heard)
	require.Eventually(t, func() bool { return server.Standbys() == 0 }, time.Minute, time.Millisecond)
}

// A heldAnswer is one whose first line does not leave before it may.
type heldAnswer struct {
	*httptest.ResponseRecorder
	writes, leaves chan struct{}
}

func (h heldAnswer) Write(b []byte) (int, error) {
	h.writes <- struct{}{}
	<-h.leaves
	return h.ResponseRecorder.Write(b)
}

// Without the proof it can't know of the holder's death.
func TestAStandbyIsCountedOnceItHasTheProofOfTheClaim(t *testing.T) {
	t.Parallel()
	s := NewServer(newHolder(nil))
	q := newQuestion(http.MethodGet, presencePath, mine(), nil)
	standby, leave := context.WithCancel(t.Context())
	answer := heldAnswer{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.presence(answer, httptest.NewRequestWithContext(standby, http.MethodGet, presencePath+"?"+q.query.Encode(), nil))
	}()
	<-answer.writes
	require.Zero(t, s.Standbys())
	close(answer.leaves)
	require.Eventually(t, func() bool { return s.Standbys() == 1 }, time.Minute, time.Millisecond)
	leave()
	<-served
	require.Zero(t, s.Standbys())
}

func TestOnlyAProcessThatKnowsTheClaimIsAnswered(t *testing.T) {
	t.Parallel()
	holder := newHolder(func(context.Context, *Successor) error { return errors.New("was asked") })
	_, address := serve(t, holder)
	for name, q := range map[string]question{
		"another claim":                 newQuestion(http.MethodPost, handoverPath, driver.ID{9}, url.Values{"generation": {"2"}}),
		"a short nonce":                 newQuestionNamed("short", http.MethodPost, handoverPath, mine(), url.Values{"generation": {"2"}}),
		"progress of another claim":     newQuestion(http.MethodPost, progressPath, driver.ID{9}, nil),
		"presence of another claim":     newQuestion(http.MethodGet, presencePath, driver.ID{9}, nil),
		"a proof of another question":   moved(newQuestion(http.MethodGet, presencePath, mine(), url.Values{"generation": {"2"}})),
		"a proof of another generation": regenerated(newQuestion(http.MethodPost, handoverPath, mine(), url.Values{"generation": {"2"}})),
	} {
		_, err := q.ask(t.Context(), address)
		require.ErrorIs(t, err, ErrNotHolder, name)
	}
	holder.claim = driver.ID{}
	_, err := dial(t, address)
	require.ErrorIs(t, err, ErrNotHolder, "it holds none")
}

// moved uses the proof of q for a handover.
func moved(q question) question {
	q.method, q.path = http.MethodPost, handoverPath
	return q
}

func regenerated(q question) question {
	q.query.Set("generation", "3")
	return q
}

func TestAProcessThatDoesNotProveItsClaimIsNoHolder(t *testing.T) {
	t.Parallel()
	address := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"proof":%q,"acknowledged":true}`+"\n", r.URL.Query().Get("proof")) // which is the asker's
	}))
	_, err := AskHandover(t.Context(), ask(address))
	require.ErrorIs(t, err, ErrNotHolder)
}

func TestAHandoverIsAcknowledgedThenPausedThenResumed(t *testing.T) {
	t.Parallel()
	work, wait := make(chan struct{}), make(chan struct{})
	_, address := serve(t, newHolder(func(ctx context.Context, s *Successor) error {
		assert.EqualValues(t, 2, s.Generation)
		assert.NoError(t, s.Acknowledge())
		<-work
		assert.NoError(t, s.Pause(Paused{Revision: 7, Version: 9}))
		<-wait
		return errors.New("nobody claimed")
	}))
	h, err := AskHandover(t.Context(), ask(address))
	require.NoError(t, err)
	defer h.Close()
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = h.Paused(soon)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(work)
	at, err := h.Paused(t.Context())
	require.NoError(t, err)
	require.Equal(t, Paused{Revision: 7, Version: 9}, at)
	select {
	case <-h.Resumed():
		t.Fatal("resumed while it waits")
	default:
	}
	close(wait)
	<-h.Resumed()
}

// A deadlined is an answer of a server whose time-out for writing is over.
type deadlined struct {
	http.ResponseWriter
	read, write *time.Time
}

func (d deadlined) SetReadDeadline(at time.Time) error  { *d.read = at; return nil }
func (d deadlined) SetWriteDeadline(at time.Time) error { *d.write = at; return nil }
func (d deadlined) FlushError() error                   { return http.NewResponseController(d.ResponseWriter).Flush() }

func (d deadlined) Write(b []byte) (int, error) {
	if time.Now().After(*d.write) {
		return 0, errors.New("the server's time-out is over")
	}
	return d.ResponseWriter.Write(b)
}

func TestAnAnswerOutlastsTheServersTimeOuts(t *testing.T) {
	t.Parallel()
	over := time.Now().Add(-time.Second)
	read, write := over, over
	s := NewServer(newHolder(func(_ context.Context, s *Successor) error {
		err := s.Acknowledge()
		write = over // much later
		return errors.Join(err, s.Pause(Paused{Revision: 1}))
	}))
	address := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handover(deadlined{w, &read, &write}, r)
		assert.Zero(t, read)
	}))
	h, err := AskHandover(t.Context(), ask(address))
	require.NoError(t, err)
	defer h.Close()
	_, err = h.Paused(t.Context())
	require.NoError(t, err)
	<-h.Resumed()
}

func TestAHandoverThatEndsBeforeThePauseSaysWhy(t *testing.T) {
	t.Parallel()
	_, address := serve(t, newHolder(func(_ context.Context, s *Successor) error {
		return errors.Join(s.Acknowledge(), errors.New("the work hangs\x1b[31m"))
	}))
	h, err := AskHandover(t.Context(), ask(address))
	require.NoError(t, err)
	defer h.Close()
	_, err = h.Paused(t.Context())
	require.ErrorIs(t, err, ErrResumed)
	require.ErrorContains(t, err, `"the work hangs\x1b[31m"`)
	<-h.Resumed()
}

func TestTheHolderHearsThatItsSuccessorWaitsNoLonger(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	_, address := serve(t, newHolder(func(ctx context.Context, s *Successor) error {
		_ = s.Acknowledge()
		<-ctx.Done()
		close(gone)
		return nil
	}))
	h, err := AskHandover(t.Context(), ask(address))
	require.NoError(t, err)
	h.Close()
	<-gone
	<-h.Resumed()
}

func TestARefusalSaysWhichOneItIs(t *testing.T) {
	t.Parallel()
	var why error
	_, address := serve(t, newHolder(func(context.Context, *Successor) error { return why }))
	for want, said := range map[error]error{
		ErrRefused:     errors.New("leader: this process leads, and does not serve"),
		ErrNotPromoted: fmt.Errorf("leader: generation 2 %w over 1", ErrNotPromoted),
		ErrBusy:        fmt.Errorf("leader: this process %w", ErrBusy),
	} {
		why = said
		_, err := AskHandover(t.Context(), ask(address))
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, said.Error())
		require.NotErrorIs(t, err, ErrNotAcknowledged)
	}
}

func TestProgressReachesTheHolderWhileTheHandoverLasts(t *testing.T) {
	t.Parallel()
	heard := make(chan struct{})
	_, address := serve(t, newHolder(func(ctx context.Context, s *Successor) error {
		if err := s.Acknowledge(); err != nil {
			return err
		}
		for range 2 {
			<-s.Progress()
			heard <- struct{}{}
		}
		return nil
	}))
	h, err := AskHandover(t.Context(), ask(address))
	require.NoError(t, err)
	defer h.Close()
	for range 1000 {
		h.Progress() // which are at most two requests
	}
	<-heard
	h.Progress()
	<-heard
	<-h.Resumed()
	h.Progress()
}

func TestProgressOfAHandoverThatHasEndedIsRefused(t *testing.T) {
	t.Parallel()
	_, address := serve(t, newHolder(nil))
	resp, err := newQuestion(http.MethodPost, progressPath, mine(), nil).send(t.Context(), address)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusConflict, resp.StatusCode)
}

func TestNoMoreConnectionsAndHandoversAreTakenThanTheLimits(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	defer close(hold)
	s, address := serve(t, newHolder(func(context.Context, *Successor) error { <-hold; return nil }))
	s.connected.Add(maxConnected)
	_, err := dial(t, address)
	require.ErrorContains(t, err, "connected already")
	s.mu.Lock()
	for i := range maxHandovers {
		s.handovers[fmt.Sprint(i)] = &Successor{}
	}
	s.mu.Unlock()
	_, err = AskHandover(t.Context(), ask(address))
	require.ErrorIs(t, err, ErrBusy, "which is no reason to claim over it")
}

func TestANonceNamesOneHandoverAtATime(t *testing.T) {
	t.Parallel()
	s := NewServer(newHolder(nil))
	leave, err := s.enter("a", &Successor{})
	require.NoError(t, err)
	_, err = s.enter("a", &Successor{})
	require.ErrorIs(t, err, ErrBusy)
	leave()
	_, err = s.enter("a", &Successor{})
	require.NoError(t, err)
}

// The holder's deadline ends a handover, and with it the connection of an asker
// that is stopped, which neither reads nor hangs up.
func TestAnAskerThatIsStoppedEndsWithTheHandover(t *testing.T) {
	t.Parallel()
	_, address := serve(t, newHolder(func(_ context.Context, s *Successor) error {
		return errors.Join(s.Acknowledge(), s.Pause(Paused{}), errors.New("no other process claimed"))
	}))
	q := newQuestion(http.MethodPost, handoverPath, mine(), url.Values{"generation": {"2"}, "acknowledge": {"1"}})
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	_, err = fmt.Fprintf(c, "POST %s?%s HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", handoverPath, q.query.Encode())
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	require.JSONEq(t, `{"proof":"`+q.about(holds)+`","acknowledged":true}`, lines[0])
	require.JSONEq(t, `{}`, lines[1], "revision 0, and no note")
	require.JSONEq(t, `{"error":"no other process claimed"}`, lines[2])
}

func TestMigrationsMayTakeAnHourAtMost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"": 0, "8s": 8 * time.Second, "9000h": time.Hour} {
		d, err := migrations(text)
		require.NoError(t, err)
		require.Equal(t, want, d)
	}
	for _, text := range []string{"-1s", "8", strings.Repeat("x", 4000)} {
		_, err := migrations(text)
		require.Error(t, err)
		require.Less(t, len(err.Error()), 200)
	}
}
