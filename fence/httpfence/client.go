package httpfence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/internal/wire"
)

// ErrTokenSet means that a request has a token already.
var ErrTokenSet = errors.New("httpfence: the request has a token already: let the Transport alone set it")

// A Transport puts a token on every request. Token is required.
type Transport struct {
	// Base sends the requests. Default: http.DefaultTransport.
	Base http.RoundTripper

	// Token returns the token that this process holds, such as
	// catalog.Catalog.Token. It is asked at each request. If it returns the zero
	// token, nothing is sent.
	Token func() fence.Token

	// Signer signs the token, for servers that can't read the catalog; those that
	// can don't look at the signature. Default: none.
	Signer *fence.Signer

	// Refusals makes a guard's refusal the error of the request, so that it
	// reaches whoever looks at errors alone, such as package leader. Otherwise it
	// is a response, of which [ResponseRefusal] makes the error.
	Refusals bool
}

// RoundTrip implements [http.RoundTripper]. A request that has a token already is
// an error that wraps [ErrTokenSet], and is not sent.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	marked, err := t.mark(r)
	if err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, err
	}
	resp, err := t.base().RoundTrip(marked)
	if err != nil || !t.Refusals {
		return resp, err
	}
	if refused := ResponseRefusal(resp); refused != nil {
		return nil, errors.Join(refused, resp.Body.Close())
	}
	return resp, nil
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// mark returns the request with the token.
func (t *Transport) mark(r *http.Request) (*http.Request, error) {
	for name := range r.Header {
		if strings.EqualFold(name, Header) {
			return nil, fmt.Errorf("%w: %s is %.64q", ErrTokenSet, Header, r.Header[name])
		}
	}
	token := t.Token()
	if token.IsZero() {
		return nil, &fence.TokenError{Guard: "http client", Err: fence.ErrMissing}
	}
	text, err := t.Signer.Text(token)
	if err != nil {
		return nil, err
	}
	marked := r.Clone(r.Context())
	if marked.Header == nil {
		marked.Header = http.Header{}
	}
	marked.Header[Header] = []string{text}
	return marked, nil
}

// maxProblem bounds the body of a refusal, in bytes.
const maxProblem = 8 << 10

// ResponseRefusal returns the refusal of a guard that a response is, or nil if it
// is something else: a *[fence.Error], which is a hint, a *[fence.TokenError], a
// *[fence.UndecidedError], or an error about the resource. The body can still be
// read. Pass a *fence.Error to catalog.Catalog.Explain, or let leader.Leader do it.
func ResponseRefusal(resp *http.Response) error {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != contentType || resp.Body == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem+1))
	resp.Body = &unread{io.MultiReader(bytes.NewReader(text), resp.Body), resp.Body}
	if err != nil || len(text) > maxProblem {
		return nil
	}
	var p problem
	if json.Unmarshal(text, &p) != nil || !strings.HasPrefix(p.Type, kindPrefix) {
		return nil
	}
	a := wire.Answer{
		Kind: wire.Kind(strings.TrimPrefix(p.Type, kindPrefix)), Resource: p.Resource, Held: p.Held, Current: p.Current, Holder: p.Holder,
	}
	if statuses[a.Kind] != resp.StatusCode {
		return nil
	}
	return a.Err("http")
}

// An unread is a body of which the beginning was read.
type unread struct {
	io.Reader
	io.Closer
}

// Refusal returns the refusal of a guard that err holds, or nil if err is none:
// that of a [Transport] with Refusals, or of a [fence.Gate] in this process.
func Refusal(err error) error { return wire.Refusal(err) }
