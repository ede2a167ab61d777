package peer

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A Conn is a connection to the holder of a claim, which has proved that it is.
type Conn struct {
	answer *answer
	cancel context.CancelFunc
}

// Dial connects to the process at address. It fails if that does not prove
// within patience that it holds claim.
func Dial(ctx context.Context, patience time.Duration, claim driver.ID, address string) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(patience, cancel)
	a, err := newQuestion(http.MethodGet, presencePath, claim, nil).ask(ctx, address)
	if !late.Stop() && err != nil {
		err = fmt.Errorf("leader: no answer from %s within %v: %w", address, patience, errors.Join(context.DeadlineExceeded, err))
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &Conn{answer: a, cancel: cancel}, nil
}

// Wait returns nil once the holder has news on the board, and an error once the
// connection has ended.
func (c *Conn) Wait() error {
	_, err := c.answer.next()
	return err
}

// Close ends the connection.
func (c *Conn) Close() {
	c.cancel()
	c.answer.Close()
}

// A question is one request, with its proof.
type question struct {
	method, path string
	claim        driver.ID
	query        url.Values
	nonce, proof string
}

func newQuestion(method, path string, claim driver.ID, query url.Values) question {
	return newQuestionNamed(rand.Text(), method, path, claim, query)
}

// newQuestionNamed is newQuestion with a nonce that the holder knows already.
func newQuestionNamed(nonce, method, path string, claim driver.ID, query url.Values) question {
	q := question{method: method, path: path, claim: claim, query: url.Values{}, nonce: nonce}
	for name, values := range query {
		q.query[name] = values
	}
	q.proof = q.about(asks)
	q.query.Set("nonce", nonce)
	q.query.Set("proof", q.proof)
	return q
}

func (q question) about(role string) string {
	return proof(q.claim, role, q.nonce, q.path, q.query.Get("generation"))
}

// An answer is what comes back, line by line.
type answer struct {
	body  io.ReadCloser
	lines *bufio.Scanner
	first line
}

// ask sends the question, and returns the answer with its first line, by which
// the process at address has proved that it holds the claim.
func (q question) ask(ctx context.Context, address string) (*answer, error) {
	resp, err := q.send(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("leader: the process at %s: %w", address, err)
	}
	a := &answer{body: resp.Body, lines: bufio.NewScanner(resp.Body)}
	a.lines.Buffer(make([]byte, 0, 512), maxLine)
	if resp.StatusCode != http.StatusOK {
		err = q.refusal(resp)
	} else if a.first, err = a.next(); err == nil && !hmac.Equal([]byte(a.first.Proof), []byte(q.about(holds))) {
		err = fmt.Errorf("%w: it does not prove that it holds %v", ErrNotHolder, q.claim)
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("leader: the process at %s: %w", address, err)
	}
	return a, nil
}

// client keeps no connection beyond its answer, and goes through no proxy: the
// end of a connection is to mean something.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// send sends the request. Its errors don't name the URL, which has the nonce and
// the proof in it.
func (q question) send(ctx context.Context, address string) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: address, Path: q.path, RawQuery: q.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, q.method, target.String(), nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	resp, err := client.Do(req)
	return resp, withoutURL(err)
}

func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// maxWhy bounds how much of a refusal is shown, in bytes. It is the text of
// whatever answers at the address.
const maxWhy = 256

// refusal says what an answer without success means.
func (q question) refusal(resp *http.Response) error {
	var said line
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if json.Unmarshal(text, &said) != nil {
		said.Error = string(text)
	}
	kind := ErrRefused
	switch {
	case resp.StatusCode == http.StatusNotFound:
		kind = ErrNotHolder
	case said.Busy:
		kind = ErrBusy
	case resp.StatusCode == http.StatusConflict:
		kind = ErrNotPromoted
	}
	return fmt.Errorf("%w: %d: %s", kind, resp.StatusCode, q.shown(said.Error))
}

// shown returns what another process said, fit for a log: bounded, without
// control characters, and without this question's nonce and proof, which a server
// that knows nothing of us may repeat.
func (q question) shown(text string) string {
	text = strings.NewReplacer(q.nonce, "…", q.proof, "…").Replace(strings.TrimSpace(text))
	return fmt.Sprintf("%.*q", maxWhy, text)
}

func (a *answer) next() (v line, err error) {
	if !a.lines.Scan() {
		return v, errors.Join(errors.New("the connection ended"), a.lines.Err())
	}
	if err = json.Unmarshal(a.lines.Bytes(), &v); err != nil {
		err = errors.New("the answer is not a line of JSON")
	}
	return v, err
}

func (a *answer) Close() { a.body.Close() }
