package exitcodes

// With returns err marked with d, for an application's own errors. It returns
// nil for a nil err. The mark wins over what the errors beneath err say, but
// [GracefulExit] only repeats what one of them proves: see [Of].
func With(err error, d Disposition) error {
	if err == nil {
		return nil
	}
	return &marked{err: err, disposition: d, code: d.Code()}
}

// WithCode returns err marked with [Halt] and an exit status other than the
// one of Halt, such as [Config] or [Usage]. It returns nil for a nil err.
func WithCode(err error, code Code) error {
	if err == nil {
		return nil
	}
	return &marked{err: err, disposition: Halt, code: code}
}

type marked struct {
	err         error
	disposition Disposition
	code        Code
}

func (m *marked) Error() string            { return m.err.Error() }
func (m *marked) Unwrap() error            { return m.err }
func (m *marked) Disposition() Disposition { return m.disposition }
func (m *marked) ExitCode() Code           { return m.code }
