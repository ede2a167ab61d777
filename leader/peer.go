package leader

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// What processes ask each other. Both requests end when the connection does, and
// on both sides prove that they know the claim, which only who can read the
// store does. They carry no authority: they say "look", and the store says what.
//
//	GET  /api/leader/presence   a line at once, and one whenever there is something to see on the board
//	POST /api/leader/handover   a line once the work is joined, and one when it is known who leads;
//	                            ?migrations=8s: the asker may need as much more time than HandoverTimeout
const (
	presencePath = "/api/leader/presence"
	handoverPath = "/api/leader/handover"
)

// maxAttending bounds the connections that are kept for presence.
const maxAttending = 512

// proof is what who knows claim can say about a nonce and what is asked for.
func proof(claim driver.ID, who, nonce, path, generation string) string {
	h := hmac.New(sha256.New, claim[:])
	_, _ = fmt.Fprintf(h, "%s %q %q %q", who, nonce, path, generation) // never fails: see hash.Hash
	return hex.EncodeToString(h.Sum(nil))
}

// A word is a line of an answer.
type word struct {
	Proof    string `json:"proof,omitempty"`
	Revision uint64 `json:"revision,omitempty"` // up to which the holder has committed
	Error    string `json:"error,omitempty"`
}

// servePeers adds what other processes may ask.
func (l *Leader) servePeers(mux *http.ServeMux) {
	mux.HandleFunc("GET "+presencePath, l.servePresence)
	mux.HandleFunc("POST "+handoverPath, l.serveHandover)
}

// proven returns the holder's own proof, where this process is the holder that
// the request means. Otherwise it has refused the request.
func (l *Leader) proven(w http.ResponseWriter, r *http.Request) (string, bool) {
	q := r.URL.Query()
	nonce := q.Get("nonce")
	c := l.holding()
	about := func(who string) string { return proof(c.Claim().ID, who, nonce, r.URL.Path, q.Get("generation")) }
	if c == nil || len(nonce) < 16 || !hmac.Equal([]byte(q.Get("proof")), []byte(about("asks"))) {
		refuse(w, http.StatusNotFound, errors.New("leader: this process does not hold the claim that is asked for"))
		return "", false
	}
	return about("holds"), true
}

// stream begins an answer of several lines, which lasts for as long as ctx.
func stream(w http.ResponseWriter) func(word) error {
	out := http.NewResponseController(w)
	_ = out.SetWriteDeadline(time.Time{}) // a server that can't keeps its own, and the asker asks again
	_ = out.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	return func(v word) error { return errors.Join(enc.Encode(v), out.Flush()) }
}

func (l *Leader) servePresence(w http.ResponseWriter, r *http.Request) {
	mine, ok := l.proven(w, r)
	if !ok {
		return
	}
	defer l.attending.Add(-1)
	if l.attending.Add(1) > maxAttending {
		refuse(w, http.StatusServiceUnavailable, fmt.Errorf("leader: %d processes are connected already", maxAttending))
		return
	}
	say, news := stream(w), l.news()
	if say(word{Proof: mine}) != nil {
		return
	}
	l.standbys.Add(1) // only now: without the proof it can't know of this process's death
	defer l.standbys.Add(-1)
	for {
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
		news = l.news()
		if say(word{Proof: mine}) != nil {
			return
		}
	}
}

// serveHandover has the holder stop its work for a successor. The store must
// say that the successor's generation is to lead: whoever can't write there
// disturbs nobody.
func (l *Leader) serveHandover(w http.ResponseWriter, r *http.Request) {
	mine, ok := l.proven(w, r)
	if !ok {
		return
	}
	next, err := generation.Parse(r.URL.Query().Get("generation"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	more, err := moreTime(r.URL.Query().Get(migrationsParam))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	intent, err := ReadIntent(r.Context(), l.store, l.cfg.boardConfig())
	if err == nil && (intent.Generation != next || next <= l.cfg.Catalog.Generation) {
		err = fmt.Errorf("leader: generation %v is not promoted over %v", next, l.cfg.Catalog.Generation)
	}
	if err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	a := newAsk(r.Context(), fmt.Sprintf("generation %v, promoted by %s, takes over", next, intent.By), false)
	a.more = more
	revision, err := l.request(r.Context(), a)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	say := stream(w)
	if say(word{Proof: mine, Revision: revision}) != nil {
		return // and the holder goes on
	}
	select {
	case err := <-a.result:
		if err != nil {
			_ = say(word{Error: err.Error()}) // who asked has gone, or has claimed
		}
	case <-r.Context().Done():
	}
}

// migrationsParam is the parameter with which a successor says for how long its
// migrations may run. It needs no proof: the pause ends with the connection.
const migrationsParam = "migrations"

// maxMigrations bounds for how long a holder waits for a successor's migrations.
const maxMigrations = time.Hour

func moreTime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("leader: %s=%q is not a duration, such as 30s", migrationsParam, text)
	}
	return min(d, maxMigrations), nil
}

// A peer is a connection to the holder of a claim, which has proved that it is.
type peer struct {
	body   io.ReadCloser
	lines  *bufio.Scanner
	first  word
	cancel context.CancelFunc
}

// callPresence connects to the process at address. It fails where that is not
// the holder of claim, or does not answer in time.
func callPresence(ctx context.Context, timeout time.Duration, claim driver.ID, address string) (*peer, error) {
	return call(ctx, timeout, claim, http.MethodGet, address, presencePath, nil)
}

// callHandover asks the process at address to hand over to generation g, and
// returns once it has stopped its work. More is how much longer than the
// holder's HandoverTimeout the handover may take. Closing the peer takes the wish
// back.
func callHandover(ctx context.Context, timeout time.Duration, claim driver.ID, address string, g generation.Generation, more time.Duration) (*peer, error) {
	q := url.Values{"generation": {g.String()}}
	if more > 0 {
		q.Set(migrationsParam, more.String())
	}
	return call(ctx, timeout, claim, http.MethodPost, address, handoverPath, q)
}

func call(ctx context.Context, timeout time.Duration, claim driver.ID, method, address, path string, q url.Values) (*peer, error) {
	nonce := rand.Text()
	if q == nil {
		q = url.Values{}
	}
	q.Set("nonce", nonce)
	about := func(who string) string { return proof(claim, who, nonce, path, q.Get("generation")) }
	q.Set("proof", about("asks"))
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(timeout, cancel)
	p, err := answered(ctx, method, (&url.URL{Scheme: "http", Host: address, Path: path, RawQuery: q.Encode()}).String())
	if err == nil && !hmac.Equal([]byte(p.first.Proof), []byte(about("holds"))) {
		p.body.Close()
		err = fmt.Errorf("leader: the process at %s does not prove that it holds the claim %v", address, claim)
	}
	if !late.Stop() && err != nil {
		err = fmt.Errorf("leader: no answer from %s within %v: %w", address, timeout, errors.Join(context.DeadlineExceeded, err))
	}
	if err != nil {
		cancel()
		return nil, err
	}
	p.cancel = cancel
	return p, nil
}

// client keeps no connection beyond its answer, and goes through no proxy: the
// end of a connection is to mean something.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// maxWord bounds a line of an answer, in bytes.
const maxWord = 4 << 10

func answered(ctx context.Context, method, target string) (*peer, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	p := &peer{body: resp.Body, lines: bufio.NewScanner(resp.Body)}
	p.lines.Buffer(make([]byte, 0, 512), maxWord)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxWord))
		p.body.Close()
		return nil, fmt.Errorf("leader: %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	if p.first, err = p.next(); err != nil {
		p.body.Close()
	}
	return p, err
}

func (p *peer) next() (v word, err error) {
	if !p.lines.Scan() {
		return v, errors.Join(errors.New("leader: the connection ended"), p.lines.Err())
	}
	err = json.Unmarshal(p.lines.Bytes(), &v)
	return v, err
}

// word waits for a further line; its error says that the connection has ended.
func (p *peer) word() error {
	_, err := p.next()
	return err
}

// Close ends the connection.
func (p *peer) Close() {
	p.cancel()
	p.body.Close()
}
