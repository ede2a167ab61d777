package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The bytes of builds before the acknowledgement, between which only the nonce,
// the proof, the host and the date differ.
const (
	oldQuestion = "POST /api/leader/handover?generation=2&migrations=8s&nonce=%s&proof=%s HTTP/1.1\r\n" +
		"Host: %s\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"

	oldHeader = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: Mon, 30 Nov 2026 13:21:12 GMT\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	oldPaused = `{"proof":%q,"revision":1}` + "\n"
	oldFailed = `{"error":"leader: no other process claimed within 13s: this process goes on leading"}` + "\n"

	oldRefusal = "HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nDate: Mon, 30 Nov 2026 13:21:12 GMT\r\nContent-Length: 56\r\nConnection: close\r\n\r\n" +
		`{"error":"leader: generation 2 is not promoted over 1"}` + "\n"
)

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// oldHolder takes one connection, checks that the question has all that an old
// build looks at, and answers with what play returns.
func oldHolder(t *testing.T, play func(proof string, send func(string))) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		q := r.URL.Query()
		about := func(role string) string {
			return proof(mine(), role, q.Get("nonce"), "/api/leader/handover", q.Get("generation"))
		}
		if r.Method != http.MethodPost || r.ContentLength != 0 || q.Get("proof") != about("asks") || q.Get("generation") != "2" || q.Get("migrations") != "8s" {
			return
		}
		play(about("holds"), func(text string) { _, _ = io.WriteString(c, text) })
	}()
	return ln.Addr().String()
}

func TestAnOldHolderIsAskedAndAnswersOnceItsWorkHasEnded(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	address := oldHolder(t, func(proof string, send func(string)) {
		send(oldHeader + chunk(fmt.Sprintf(oldPaused, proof)))
		<-goOn
		send(chunk(oldFailed) + "0\r\n\r\n")
	})
	a := ask(address)
	a.Migrations = 8 * time.Second
	h, err := AskHandover(t.Context(), a)
	require.NoError(t, err)
	defer h.Close()
	at, err := h.Paused(t.Context())
	require.NoError(t, err)
	require.Equal(t, Paused{Revision: 1}, at)
	h.Progress() // which it does not know
	close(goOn)
	<-h.Resumed()
}

func TestAnOldHolderThatRefusesIsHeard(t *testing.T) {
	t.Parallel()
	a := ask(oldHolder(t, func(_ string, send func(string)) { send(oldRefusal) }))
	a.Migrations = 8 * time.Second
	_, err := AskHandover(t.Context(), a)
	require.ErrorIs(t, err, ErrNotPromoted)
	require.ErrorContains(t, err, "leader: generation 2 is not promoted over 1")
}

func TestAnOldAskerGetsOneLineOnceTheWorkHasEnded(t *testing.T) {
	t.Parallel()
	joined, goOn := make(chan struct{}), make(chan struct{})
	_, address := serve(t, newHolder(func(_ context.Context, s *Successor) error {
		assert.Equal(t, 8*time.Second, s.Migrations)
		assert.NoError(t, s.Acknowledge())
		<-joined
		assert.NoError(t, s.Pause(Paused{Revision: 1}))
		<-goOn
		return errors.New("leader: no other process claimed within 13s: this process goes on leading")
	}))
	nonce := strings.Repeat("N", 26)
	about := func(role string) string { return proof(mine(), role, nonce, "/api/leader/handover", "2") }
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = fmt.Fprintf(c, oldQuestion, nonce, url.QueryEscape(about("asks")), address)
	require.NoError(t, err)
	close(joined)
	r := bufio.NewReader(c)
	first := oldHeader + chunk(fmt.Sprintf(oldPaused, about("holds")))
	require.Equal(t, undated(first), undated(take(t, r, len(first))))
	close(goOn)
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, chunk(oldFailed)+"0\r\n\r\n", string(rest))
}

func take(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	require.NoError(t, err)
	return string(b)
}

// undated leaves out the line of the date.
func undated(text string) string {
	before, after, _ := strings.Cut(text, "Date: ")
	_, after, _ = strings.Cut(after, "\r\n")
	return before + after
}
