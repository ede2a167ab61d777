package kv

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"
)

// redisVersion is the version of Redis that clients are told: that of the
// commands as they behave here.
const redisVersion = "6.2.0"

// A Field is one line of INFO.
type Field struct{ Name, Value string }

// A section is a part of INFO under a title.
type section struct {
	title  string
	fields []Field
}

// makeInfo answers every section, or the ones that are named.
func makeInfo(args [][]byte) (op, error) {
	wanted := make(map[string]bool)
	for _, arg := range args {
		wanted[strings.ToLower(string(arg))] = true
	}
	all := len(args) == 0 || wanted["all"] || wanted["default"] || wanted["everything"]
	return local(func(s *session) []byte {
		var text strings.Builder
		for _, part := range s.server.info() {
			if all || wanted[strings.ToLower(part.title)] {
				part.write(&text)
			}
		}
		return redcon.AppendBulkString(nil, text.String())
	})
}

// write writes a section; a value with lines would break the format.
func (p section) write(text *strings.Builder) {
	if text.Len() > 0 {
		text.WriteString("\r\n")
	}
	fmt.Fprintf(text, "# %s\r\n", p.title)
	oneLine := strings.NewReplacer("\r", " ", "\n", " ")
	for _, f := range p.fields {
		fmt.Fprintf(text, "%s:%s\r\n", f.Name, oneLine.Replace(f.Value))
	}
}

func (s *Server) info() []section {
	return []section{
		{"Server", []Field{
			{"redis_version", redisVersion},
			{"redis_mode", "standalone"},
			{"process_id", strconv.Itoa(os.Getpid())},
			{"uptime_in_seconds", strconv.FormatInt(int64(time.Since(s.started).Seconds()), 10)},
		}},
		{"Clients", []Field{{"connected_clients", strconv.FormatInt(s.connected.Load(), 10)}}},
		{"Stats", []Field{{"total_commands_processed", strconv.FormatUint(s.processed.Load(), 10)}}},
		{"Replication", []Field{{"role", s.role()}}},
		{"Fencepost", s.fencepost()},
	}
}

// role is Redis' word for whether a server takes writes.
func (s *Server) role() string {
	if s.leading() == nil {
		return "slave"
	}
	return "master"
}

// fencepost returns the fields about the token. The phase is leading only while
// data commands are admitted: to hold the token is less than that.
func (s *Server) fencepost() []Field {
	c := s.leading()
	switch {
	case c != nil:
		return []Field{
			{"fencepost_token", c.Token().String()},
			{"fencepost_phase", "leading"},
			{"fencepost_generation", c.Token().Generation.String()},
			{"fencepost_revision", strconv.FormatUint(c.Head().Revision, 10)},
		}
	case s.cfg.Info != nil:
		return s.cfg.Info()
	default:
		return []Field{{"fencepost_phase", "not-leading"}}
	}
}
