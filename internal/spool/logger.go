package spool

import (
	"context"
	"log/slog"
	"time"
)

// waitingLines is how many lines of a log may wait for its reader.
const waitingLines = 1024

// Logger returns a logger whose calls never wait for the handler of l. A
// record keeps the time of its call, and a slog.LogValuer is asked there too;
// other attributes must not change afterwards. A logger that Logger has returned
// is returned as it is.
func Logger(l *slog.Logger) *slog.Logger {
	if _, ok := l.Handler().(*handler); ok {
		return l
	}
	return slog.New(&handler{inner: l.Handler(), lines: New(waitingLines, line.write)})
}

// Flush waits until everything is written that l was given, at most for that
// long. It reports whether that is so, and does nothing for a logger that Logger
// has not returned.
func Flush(l *slog.Logger, within time.Duration) bool {
	h, ok := l.Handler().(*handler)
	return !ok || h.lines.Flush(within)
}

// A handler hands records to another one, beside whoever logs them.
type handler struct {
	inner slog.Handler
	lines *Queue[line]
}

// A line is a record on its way to a handler.
type line struct {
	to     slog.Handler
	ctx    context.Context
	record slog.Record
}

// write hands the record on. When that fails nobody is left to tell.
func (l line) write(dropped int) {
	if dropped > 0 {
		gap := slog.NewRecord(time.Now(), slog.LevelWarn, "lines of the log were dropped, since it was not read", 0)
		gap.AddAttrs(slog.Int("dropped", dropped))
		_ = l.to.Handle(l.ctx, gap)
	}
	_ = l.to.Handle(l.ctx, l.record)
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	kept := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		kept.AddAttrs(resolved(a))
		return true
	})
	h.lines.Put(line{h.inner, context.WithoutCancel(ctx), kept})
	return nil
}

// resolved is an attribute whose value is known, also within groups.
func resolved(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() != slog.KindGroup {
		return a
	}
	var group []slog.Attr
	for _, member := range a.Value.Group() {
		group = append(group, resolved(member))
	}
	a.Value = slog.GroupValue(group...)
	return a
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.inner.WithAttrs(attrs), h.lines}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.inner.WithGroup(name), h.lines}
}
