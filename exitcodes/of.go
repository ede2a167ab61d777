package exitcodes

import (
	"fmt"
	"slices"
)

// A disposer is an error that says what the process must do about it. It
// speaks for every error that it wraps.
type disposer interface{ Disposition() Disposition }

// A coder is a disposer whose exit status isn't its disposition's own.
type coder interface{ ExitCode() Code }

// A witness is an error that carries the proof of its being superseded: the
// generation that this process held, and the one that it saw in the store.
type witness interface {
	Generations() (held, current uint64)
}

// Of returns what a process must do about err. It looks through the whole
// tree: what %w wraps, what errors.Join joins, and what a multierror of
// HashiCorp's holds. An error that has a Disposition speaks for what it wraps;
// of errors joined side by side the highest of graceful exit, panic, halt,
// retry and none decides. It returns [None] for nil, and where no error says
// anything. A Disposition that this package doesn't know counts as [Panic].
//
// [GracefulExit] takes more than the word: the error that claims it, or one
// that it wraps, has a method Generations() (held, current uint64) whose
// current is above held, as a fence of package fence has. A claim without that
// proof is a defect in the program, and counts as Panic.
func Of(err error) Disposition {
	return decide(voices(err)).disposition
}

// CodeOf returns the exit status of a process that ends because of err:
// [Success] for nil, [Failure] where no error has a disposition, and otherwise
// the code of the one that decides, as [Of] describes. Among several halts
// [Config] wins, because a restart that another halt asks for would not mend
// it. Only nil and graceful exit with its proof give Success.
func CodeOf(err error) Code {
	if err == nil {
		return Success
	}
	return decide(voices(err)).code
}

// A voice is one error of a tree that is heard beside the others.
type voice struct {
	err         error // with all its wrapping, up to the join above it
	disposition Disposition
	code        Code
	defect      string // of a voice that is a panic because of what it said; else empty
}

// text is what the error says, and what is wrong with its saying so.
func (v voice) text(err error) string {
	if v.defect == "" {
		return textOf(err)
	}
	return textOf(err) + "; " + v.defect
}

// unproven is what the ending record says of a graceful exit that nothing
// stands behind.
const unproven = "graceful exit was claimed without the proof of a newer generation, which is a defect in the program"

// voices collects who is heard of err: along a chain the first error with a
// disposition, of a join everyone.
func voices(err error) []voice {
	for e := err; e != nil; e = unwrap(e) {
		if d, ok := e.(disposer); ok {
			return []voice{ask(err, d)}
		}
		if branches := branches(e); len(branches) > 0 {
			var all []voice
			for _, b := range branches {
				all = append(all, voices(b)...)
			}
			return all
		}
	}
	if err == nil {
		return nil
	}
	return []voice{{err: err, disposition: None, code: Failure}}
}

// ask turns what d says into a voice that is safe to act on. An error that
// can't answer, such as a nil pointer in an error's clothes, is a defect.
func ask(err error, d disposer) (v voice) {
	defer func() {
		if recover() != nil {
			v = voice{err: err, disposition: Panic, code: PanicExit}
		}
	}()
	disposition := d.Disposition()
	if disposition >= numDispositions {
		return voice{err: err, disposition: Panic, code: PanicExit}
	}
	if claim, _ := d.(error); disposition == GracefulExit && !proven(claim) {
		return voice{err: err, disposition: Panic, code: PanicExit, defect: unproven}
	}
	code := disposition.Code()
	if c, ok := d.(coder); ok && disposition != GracefulExit {
		code = usable(c.ExitCode(), code)
	}
	return voice{err: err, disposition: disposition, code: code}
}

// proven reports whether err, or any error that it wraps or joins, carries the
// proof that a newer generation leads. One that can't answer carries none.
func proven(err error) bool {
	for e := err; e != nil; e = unwrap(e) {
		if testifies(e) || slices.ContainsFunc(branches(e), proven) {
			return true
		}
	}
	return false
}

func testifies(err error) (superseded bool) {
	defer func() { _ = recover() }()
	w, ok := err.(witness)
	if !ok {
		return false
	}
	held, current := w.Generations()
	return current > held
}

// usable returns code where a process can end with it without claiming
// success, and otherwise the fallback. The system keeps eight bits only.
func usable(code, fallback Code) Code {
	if code < 1 || code > 255 {
		return fallback
	}
	return code
}

// decide returns the voice that decides: of the highest disposition, and among
// equals the one with the code that says most. It returns a silent success for
// no voice at all.
func decide(all []voice) voice {
	var winner voice
	for i, v := range all {
		if i == 0 || v.beats(winner) {
			winner = v
		}
	}
	return winner
}

func (v voice) beats(w voice) bool {
	if v.disposition != w.disposition {
		return v.disposition > w.disposition
	}
	if v.weight() != w.weight() {
		return v.weight() > w.weight()
	}
	return v.code < w.code
}

// weight ranks codes within a disposition: configuration, any other code that
// was chosen on purpose, and last the disposition's own.
func (v voice) weight() int {
	switch v.code {
	case Config:
		return 2
	case v.disposition.Code():
		return 0
	default:
		return 1
	}
}

// leaves returns the errors of a tree that stand at the end of a join, marks
// notwithstanding, each with its own wrapping; err itself where nothing is
// joined.
func leaves(err error) []error {
	for e := err; e != nil; e = unwrap(e) {
		if branches := branches(e); len(branches) > 0 {
			var all []error
			for _, b := range branches {
				all = append(all, leaves(b)...)
			}
			return all
		}
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// unwrap returns what err wraps, and nil for one that can't say.
func unwrap(err error) (inner error) {
	defer func() { _ = recover() }()
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

// branches returns the errors that err joins, without the nil ones. A
// multierror also has an Unwrap, which shows one error at a time; its
// WrappedErrors shows all of them.
func branches(err error) (errs []error) {
	defer func() { _ = recover() }()
	var found []error
	switch joined := err.(type) {
	case interface{ WrappedErrors() []error }:
		found = joined.WrappedErrors()
	case interface{ Unwrap() []error }:
		found = joined.Unwrap()
	}
	for _, e := range found {
		if e != nil {
			errs = append(errs, e)
		}
	}
	return errs
}

// textOf is err.Error for errors that may be nil pointers.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("an error of type %T that can't be printed", err)
		}
	}()
	return err.Error()
}
