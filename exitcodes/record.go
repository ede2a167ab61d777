package exitcodes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
	"unicode/utf8"
)

const (
	// TerminationLogEnv names the environment variable with the path to which
	// a process writes its ending record.
	TerminationLogEnv = "FENCEPOST_TERMINATION_LOG"

	// AdminField is the field of a [Record] with the address, as host:port,
	// at which the process answered its admin API. See [Annotate].
	AdminField = "admin"

	// MaxRecordSize bounds an ending record, in bytes with its newline.
	// Kubernetes reads no more of a termination message.
	MaxRecordSize = 4096

	kubernetesLog = "/dev/termination-log"
)

// A Record says how a process ended, and why: the ending record. It is one
// line of JSON, of which a reader must ignore fields that it doesn't know.
type Record struct {
	Disposition   string          `json:"disposition"` // as Disposition.String names it
	Code          Code            `json:"code"`
	Superseded    bool            `json:"superseded,omitempty"` // a newer generation leads
	StopRequested bool            `json:"stop_requested,omitempty"`
	Reason        string          `json:"reason"`
	Errors        []RecordedError `json:"errors,omitempty"`         // all of them, the explained-away ones too
	Omitted       int             `json:"errors_omitted,omitempty"` // errors that found no room
	Name          string          `json:"name,omitempty"`
	PID           int             `json:"pid,omitempty"`
	At            time.Time       `json:"at"`
	Stacks        string          `json:"stacks,omitempty"` // of all goroutines, if the work panicked or did not return; cut to the room that is left

	// Fields are what [Annotate] added. In the JSON they stand beside the
	// others, which win over a field of the same name.
	Fields map[string]string `json:"-"`
}

// A RecordedError is one of the errors that a process ended with.
type RecordedError struct {
	Disposition string `json:"disposition"`
	Code        Code   `json:"code"`
	Text        string `json:"text"`
}

// MarshalJSON writes the fields of r and r.Fields as one flat object.
func (r Record) MarshalJSON() ([]byte, error) {
	type plain Record
	own, err := encode(plain(r))
	if err != nil || len(r.Fields) == 0 {
		return own, err
	}
	flat := make(map[string]any)
	for key, value := range r.Fields {
		flat[key] = value
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(own, &fields); err != nil {
		return nil, err
	}
	for key, value := range fields {
		flat[key] = value
	}
	return encode(flat)
}

// UnmarshalJSON reads what MarshalJSON wrote. Fields that aren't strings and
// that this version doesn't know are left out.
func (r *Record) UnmarshalJSON(data []byte) error {
	type plain Record
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, own := range []string{"disposition", "reason", "name", "at", "stacks"} {
		delete(all, own)
	}
	r.Fields = nil
	for key, value := range all {
		if text, ok := value.(string); ok {
			r.note(key, text)
		}
	}
	return nil
}

func (r *Record) note(key, value string) {
	if r.Fields == nil {
		r.Fields = make(map[string]string)
	}
	r.Fields[key] = value
}

// recordOf describes an ending with err, as decided.
func recordOf(err error, decided voice) Record {
	r := Record{
		Disposition: decided.disposition.String(),
		Code:        decided.code,
		Superseded:  decided.disposition == GracefulExit,
		PID:         os.Getpid(),
		At:          time.Now().UTC(),
	}
	if err == nil {
		return r
	}
	r.Reason = decided.text(err)
	for _, leaf := range leaves(err) {
		v := decide(voices(leaf))
		r.Errors = append(r.Errors, RecordedError{v.disposition.String(), v.code, v.text(leaf)})
	}
	return r
}

// line encodes r as one line of at most MaxRecordSize bytes. Texts that are
// too long are cut, errors that find no room are counted. Stacks have what room the
// rest leaves.
func (r Record) line() ([]byte, error) {
	all := r.Stacks
	r.Stacks = ""
	r, line, err := r.fit()
	for room := MaxRecordSize - len(line); err == nil && all != "" && room > 64; room = room * 3 / 4 {
		r.Stacks = cutText(all, room)
		more, err := encode(r)
		if err == nil && len(more) < MaxRecordSize {
			line = more
			break
		}
	}
	return append(line, '\n'), err
}

// fit returns r as it finds room, and its line without the end.
func (r Record) fit() (Record, []byte, error) {
	for limit := MaxRecordSize; ; limit /= 2 {
		fits := r.cut(limit)
		line, err := encode(fits)
		if err != nil || len(line) < MaxRecordSize {
			return fits, line, err
		}
		if limit == 0 {
			return r, nil, fmt.Errorf("the ending record has %d bytes at its shortest, above %d", len(line), MaxRecordSize)
		}
	}
}

// cut returns r with every text cut to limit bytes, and only as many errors
// and fields as fit at that length.
func (r Record) cut(limit int) Record {
	r.Reason = cutText(r.Reason, limit)
	r.Name = cutText(r.Name, limit)
	keep := min(len(r.Errors), limit/16)
	r.Omitted += len(r.Errors) - keep
	errs := make([]RecordedError, keep)
	for i := range errs {
		errs[i] = r.Errors[i]
		errs[i].Text = cutText(errs[i].Text, limit)
	}
	r.Errors = errs
	if limit < 64 {
		r.Fields = nil
	}
	return r
}

// cutText returns at most limit bytes of text, and an ellipsis where it was
// longer.
func cutText(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "…"
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding the ending record: %w", err)
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}
