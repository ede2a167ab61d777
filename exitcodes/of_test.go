package exitcodes_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/hashicorp/go-multierror"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// spoken is an error that says its own disposition, and its code where that
// isn't zero.
type spoken struct {
	disposition   exitcodes.Disposition
	code          exitcodes.Code
	inner         error
	held, current uint64
}

// superseded is the proof that a newer generation leads.
func superseded() error {
	return fence.Check(fence.Token{Generation: 7, Epoch: 41}, fence.Token{Generation: 8, Epoch: 42}, fence.Holder{Name: "green"})
}

// speaks is an error that says d by itself, with the proof where d takes one.
func speaks(d exitcodes.Disposition) *spoken {
	return &spoken{disposition: d, held: 7, current: 8}
}

func (s *spoken) Error() string                       { return "an error that says " + s.disposition.String() }
func (s *spoken) Unwrap() error                       { return s.inner }
func (s *spoken) Disposition() exitcodes.Disposition  { return s.disposition }
func (s *spoken) Generations() (held, current uint64) { return s.held, s.current }
func (s *spoken) ExitCode() exitcodes.Code {
	if s.code != 0 {
		return s.code
	}
	return s.disposition.Code()
}

// ranked are all dispositions from the weakest to the one that explains all
// others, as DESIGN has them.
func ranked() []exitcodes.Disposition {
	return []exitcodes.Disposition{
		exitcodes.None, exitcodes.Retry, exitcodes.Halt, exitcodes.Panic, exitcodes.GracefulExit,
	}
}

// joins are the ways in which two errors come up together.
func joins() map[string]func(a, b error) error {
	return map[string]func(a, b error) error{
		"errors.Join":          func(a, b error) error { return errors.Join(a, b) },
		"multierror":           func(a, b error) error { return multierror.Append(nil, a, b) },
		"two verbs":            func(a, b error) error { return fmt.Errorf("op: %w, then %w", a, b) },
		"wrapped join":         func(a, b error) error { return fmt.Errorf("op: %w", errors.Join(a, b)) },
		"wrapped multierror":   func(a, b error) error { return fmt.Errorf("op: %w", multierror.Append(nil, a, b)) },
		"joined wraps":         func(a, b error) error { return errors.Join(fmt.Errorf("x: %w", a), fmt.Errorf("y: %w", b)) },
		"join in multierror":   func(a, b error) error { return multierror.Append(errors.New("plain"), errors.Join(a, b)) },
		"multierror in a join": func(a, b error) error { return errors.Join(errors.New("plain"), multierror.Append(nil, a, b)) },
		"nested to the left":   func(a, b error) error { return errors.Join(errors.Join(a, errors.New("plain")), b) },
		"nested to the right":  func(a, b error) error { return errors.Join(a, errors.Join(errors.New("plain"), b)) },
	}
}

// voicings are the ways in which an error comes by its disposition.
func voicings() map[string]func(exitcodes.Disposition) error {
	return map[string]func(exitcodes.Disposition) error{
		"method": func(d exitcodes.Disposition) error { return speaks(d) },
		"mark": func(d exitcodes.Disposition) error {
			if d == exitcodes.GracefulExit {
				return exitcodes.With(fmt.Errorf("marked: %w", superseded()), d)
			}
			return exitcodes.With(errors.New("marked"), d)
		},
		"mark over another": func(d exitcodes.Disposition) error { return exitcodes.With(superseded(), d) },
		"mark over a join": func(d exitcodes.Disposition) error {
			return exitcodes.With(errors.Join(errors.New("plain"), superseded()), d)
		},
		"method over another": func(d exitcodes.Disposition) error {
			return &spoken{disposition: d, inner: superseded()}
		},
	}
}

func TestOfAnyTwoErrorsTheHigherDispositionDecides(t *testing.T) {
	for joinName, join := range joins() {
		for voiceName, voice := range voicings() {
			for i, a := range ranked() {
				for j, b := range ranked() {
					err := join(voice(a), voice(b))
					want := ranked()[max(i, j)]
					require.Equal(t, want, exitcodes.Of(err), "%s, %s: %v and %v", joinName, voiceName, a, b)
					require.Equal(t, want.Code(), exitcodes.CodeOf(err), "%s, %s: %v and %v", joinName, voiceName, a, b)
				}
			}
		}
	}
}

func TestASingleErrorIsHeardThroughEveryWrapping(t *testing.T) {
	for _, d := range ranked() {
		err := fmt.Errorf("a: %w", fmt.Errorf("b: %w", speaks(d)))
		require.Equal(t, d, exitcodes.Of(err))
		require.Equal(t, d.Code(), exitcodes.CodeOf(err))
	}
}

func TestAMarkOnAJoinSpeaksForAllOfIt(t *testing.T) {
	joined := errors.Join(superseded(), &spoken{disposition: exitcodes.Panic})
	require.Equal(t, exitcodes.Retry, exitcodes.Of(exitcodes.With(joined, exitcodes.Retry)))
	require.Equal(t, exitcodes.Halt, exitcodes.Of(errors.Join(
		exitcodes.With(joined, exitcodes.Retry), &spoken{disposition: exitcodes.Halt})), "its siblings are asked too")
}

func TestAmongHaltsConfigurationWinsOverRestart(t *testing.T) {
	restart := &spoken{disposition: exitcodes.Halt}
	config := &spoken{disposition: exitcodes.Halt, code: exitcodes.Config}
	usage := exitcodes.WithCode(errors.New("no such flag"), exitcodes.Usage)
	for name, join := range joins() {
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(join(restart, config)), name)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(join(config, restart)), name)
		require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(join(restart, usage)), name)
		require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(join(usage, restart)), name)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(join(usage, config)), name)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(join(config, &spoken{disposition: exitcodes.Panic})), name)
	}
}

func TestNilIsASuccessAndAnErrorWithoutDispositionAFailure(t *testing.T) {
	require.Equal(t, exitcodes.None, exitcodes.Of(nil))
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(nil))
	for _, err := range []error{errors.New("plain"), context.Canceled, fs.ErrNotExist, errors.Join(errors.New("a"), errors.New("b"))} {
		require.Equal(t, exitcodes.None, exitcodes.Of(err))
		require.Equal(t, exitcodes.Failure, exitcodes.CodeOf(err))
	}
	require.NoError(t, exitcodes.With(nil, exitcodes.Panic))
	require.NoError(t, exitcodes.WithCode(nil, exitcodes.Config))
}

func TestNoErrorButGracefulExitEndsWithZero(t *testing.T) {
	for _, code := range []exitcodes.Code{-1, 0, 256, 512, 1 << 20} {
		for _, d := range ranked() {
			if d == exitcodes.GracefulExit {
				continue
			}
			got := exitcodes.CodeOf(&spoken{disposition: d, code: code})
			require.Equal(t, d.Code(), got, "%v with code %d", d, code)
			require.NotZero(t, got&0xff)
		}
		require.Equal(t, exitcodes.Restart, exitcodes.CodeOf(exitcodes.WithCode(errors.New("x"), code)))
	}
	proven := speaks(exitcodes.GracefulExit)
	proven.code = 7
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(proven), "graceful exit has one code")
}

func TestGracefulExitWithoutTheProofOfANewerGenerationIsAPanic(t *testing.T) {
	byEpoch := fence.Check(fence.Token{Generation: 7, Epoch: 41}, fence.Token{Generation: 7, Epoch: 42}, fence.Holder{})
	for name, err := range map[string]error{
		"a mark on any error":           exitcodes.With(errors.New("generation 8 leads"), exitcodes.GracefulExit),
		"a mark on a fence by epoch":    exitcodes.With(byEpoch, exitcodes.GracefulExit),
		"a mark on a mark":              exitcodes.With(exitcodes.With(errors.New("x"), exitcodes.GracefulExit), exitcodes.GracefulExit),
		"the same generation":           &spoken{disposition: exitcodes.GracefulExit, held: 8, current: 8},
		"an older generation":           &spoken{disposition: exitcodes.GracefulExit, held: 8, current: 7},
		"a proof above the claim":       &unheard{exitcodes.With(errors.New("x"), exitcodes.GracefulExit)},
		"a proof that can't be read":    exitcodes.With((*fence.Error)(nil), exitcodes.GracefulExit),
		"a proof beside it that is not": errors.Join(byEpoch, exitcodes.With(errors.New("x"), exitcodes.GracefulExit)),
	} {
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err), name)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err), name)
	}
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(errors.Join(
		exitcodes.With(errors.New("x"), exitcodes.GracefulExit), superseded())), "a proof beside it explains that too")
}

// unheard carries a proof and claims nothing by itself.
type unheard struct{ error }

func (u *unheard) Unwrap() error                       { return u.error }
func (u *unheard) Generations() (held, current uint64) { return 7, 8 }

func TestADispositionThatNobodyKnowsIsAPanic(t *testing.T) {
	err := &spoken{disposition: 200, code: exitcodes.Success}
	require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
	require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
}

func TestANilPointerInAnErrorsClothesIsNoSuccess(t *testing.T) {
	require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf((*spoken)(nil)))
	require.Equal(t, exitcodes.Failure, exitcodes.CodeOf((*multierror.Error)(nil)))
	require.Equal(t, exitcodes.Failure, exitcodes.CodeOf((*fs.PathError)(nil)))
	require.Equal(t, exitcodes.Failure, exitcodes.CodeOf(&multierror.Error{}))
}

func ExampleOf() {
	held, current := fence.Token{Generation: 7, Epoch: 41}, fence.Token{Generation: 8, Epoch: 42}
	superseded := fence.Check(held, current, fence.Holder{Name: "green"})
	lost := exitcodes.With(errors.New("connection lost"), exitcodes.Retry)
	err := fmt.Errorf("serving: %w", errors.Join(lost, superseded))
	fmt.Println(exitcodes.Of(err), exitcodes.CodeOf(err))
	fmt.Println(exitcodes.Of(lost), exitcodes.CodeOf(lost))
	// Output:
	// graceful exit 0
	// retry 75
}
