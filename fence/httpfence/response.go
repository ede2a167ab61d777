package httpfence

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// A response is what a guarded handler writes to. It knows whether anything was
// answered, and can be cut off: reads of the request then fail at once, and writes
// of the answer after a while. It has no Unwrap, so that nobody hijacks the
// connection, whose end the gate would not see.
type response struct {
	http.ResponseWriter
	control *http.ResponseController

	mu    sync.Mutex
	wrote bool
	isCut bool // deadlines stay as they are
}

func newResponse(w http.ResponseWriter) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w)}
}

// cut ends the reading now and the writing at deadline. A server that can't has no
// client that stands still, such as one of a test.
func (w *response) cut(deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	_ = w.control.SetReadDeadline(time.Unix(1, 0))
	_ = w.control.SetWriteDeadline(deadline)
}

// uncut lets the connection go on after the handler: a deadline for writing would
// hold for the next request too.
func (w *response) uncut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

func (w *response) answered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote
}

func (w *response) answers() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote = true
}

// WriteHeader implements [http.ResponseWriter].
func (w *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.answers()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *response) Write(b []byte) (int, error) {
	w.answers()
	return w.ResponseWriter.Write(b)
}

// ReadFrom implements [io.ReaderFrom].
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	w.answers()
	return io.Copy(w.ResponseWriter, r)
}

// Flush implements [http.Flusher].
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is what [http.ResponseController.Flush] calls.
func (w *response) FlushError() error {
	w.answers()
	return w.control.Flush()
}

// EnableFullDuplex is what [http.ResponseController] calls.
func (w *response) EnableFullDuplex() error { return w.control.EnableFullDuplex() }

// SetReadDeadline is what [http.ResponseController] calls.
func (w *response) SetReadDeadline(t time.Time) error {
	return w.setDeadline(w.control.SetReadDeadline, t)
}

// SetWriteDeadline is what [http.ResponseController] calls.
func (w *response) SetWriteDeadline(t time.Time) error {
	return w.setDeadline(w.control.SetWriteDeadline, t)
}

func (w *response) setDeadline(set func(time.Time) error, t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut {
		return fmt.Errorf("httpfence: a newer token was seen: the deadlines of this request stay: %w", http.ErrNotSupported)
	}
	return set(t)
}
