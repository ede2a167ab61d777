package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// A promoting is one promote command.
type promoting struct {
	app        *app
	generation generation.Generation
	timeout    time.Duration
	noWait     bool
	whenIdle   bool
	within     time.Duration // how long to wait for an idle moment
	wait       string        // for waitServing or waitClaim
	opts       leader.PromoteOptions
}

func (a *app) promoteCommand() *cobra.Command {
	p := promoting{app: a}
	var number string
	cmd := &cobra.Command{
		Use:   "promote --generation N",
		Short: "Let generation N lead from now on, and wait until it does",
		Long: `Promote writes down that generation N shall lead, and waits until a process of it
leads and says that it serves; with --wait claim until it leads. A build that does
not say whether it serves is taken at its claim. The intent is durable: a crash of
either side loses nothing, and to promote the same generation again changes nothing.

It fails with status 1, at once, if a higher generation leads or was promoted, or
if N was aborted, also while it waits. A promotion that is refused changes
nothing. If the time is over it ends with 75; the intent stays. A token that
fencepost fence or restored has raised is nobody's: the wait goes on until a
process has claimed.

With --when-idle it first waits, before anything is written, until the process that
leads reports no work under way. That report may be a second old. It ends with 75 if
no such moment comes, and at once if the promotion would be refused. It does not wait
if the generation leads or was promoted already.

A number that was never handed out is refused too, because most of them are typing
errors: start a process of the generation first, take its number from fencepost
generation next, or hand out your own by fencepost generation reserve. --force
promotes it nevertheless, and hands it out.`,
		Example: `  fencepost promote --generation 8
  fencepost promote --generation 8 --reason 'release 2.4, change 4711'
  fencepost promote --generation 8 --timeout 5m --json
  fencepost promote --generation 8 --when-idle --within 30m
  fencepost promote --generation 8 --no-wait`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&number, "generation", "", "`N`, the generation that shall lead (required)")
	flags.DurationVar(&p.timeout, "timeout", time.Minute, "how long to wait")
	flags.StringVar(&p.wait, "wait", waitServing, "what to wait for: `serving` or claim")
	flags.BoolVar(&p.noWait, "no-wait", false, "only write the intent")
	flags.BoolVar(&p.whenIdle, "when-idle", false, "promote at a moment when the holder has no work under way")
	flags.DurationVar(&p.within, "within", 5*time.Minute, "how long to wait for such a moment")
	flags.BoolVar(&p.opts.Force, "force", false, "promote a number that was never handed out, too")
	whoAndWhy(cmd, &p.opts.By, &p.opts.Reason)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if p.generation, err = parseGeneration("promote", number); err != nil {
			return err
		}
		if err := a.checkWhoAndWhy(&p.opts.By, p.opts.Reason); err != nil {
			return err
		}
		if p.wait != waitServing && p.wait != waitClaim {
			return fmt.Errorf("--wait is %q, want %s or %s", p.wait, waitServing, waitClaim)
		}
		if p.timeout <= 0 {
			return fmt.Errorf("--timeout is %v, want more than 0", p.timeout)
		}
		if flags.Changed("within") && !p.whenIdle {
			return errors.New("--within is how long to wait for an idle moment, and goes with --when-idle")
		}
		if p.within <= 0 {
			return fmt.Errorf("--within is %v, want more than 0", p.within)
		}
		return a.action(func(ctx context.Context) error { return a.withStore(ctx, p.run) })(cmd, args)
	}
	return cmd
}

// parseGeneration reads the flag --generation of a command that needs it.
func parseGeneration(command, text string) (generation.Generation, error) {
	if text == "" {
		return generation.None, fmt.Errorf("%s needs --generation N: which generation is meant", command)
	}
	g, err := generation.Parse(text)
	if err != nil {
		return generation.None, fmt.Errorf("--generation: %w", err)
	}
	return g, nil
}

// A promoted is the answer in JSON. Token and holder are the new leader's.
type promoted struct {
	Store     string        `json:"store"`
	Promotion *promotion    `json:"promotion"` // null: it leads without one
	Leading   bool          `json:"leading"`   // false: not waited for
	Serving   *bool         `json:"serving"`   // null: not waited for, or its build does not say
	Token     *fence.Token  `json:"token"`
	Holder    *fence.Holder `json:"holder"`
	Waited    int64         `json:"waited_ms"`
}

func (p *promoting) run(ctx context.Context, store driver.Store) error {
	began := time.Now()
	if p.whenIdle {
		if err := p.newWait(store).awaitIdle(ctx); err != nil {
			return err
		}
	}
	intent, err := p.promote(ctx, store)
	if err != nil {
		return p.refused(err)
	}
	answer := promoted{Store: store.String(), Promotion: promotionOf(intent)}
	if intent.Generation == p.generation {
		p.say("generation %v is promoted in %s by %s, %s%s", p.generation, answer.Store, cell(intent.By), when(intent.At, time.Now()), why(intent.Reason()))
	}
	if p.noWait {
		return p.answer(answer)
	}
	w := p.newWait(store)
	if err := w.await(ctx); err != nil {
		return err
	}
	claim := w.newest.head.Claim
	answer.Leading, answer.Serving, answer.Token, answer.Holder = true, w.serving, &claim.Token, &claim.Holder
	answer.Waited = time.Since(began).Milliseconds()
	does := "leads"
	if w.serving != nil {
		does = "leads and serves"
	}
	p.say("generation %v %s: token %v, %s, after %dms", p.generation, does, claim.Token, holder(claim.Holder), answer.Waited)
	return p.answer(answer)
}

func (p *promoting) refused(err error) error {
	return fmt.Errorf("generation %v is not promoted: %w", p.generation, advised(err))
}

// promote writes the intent. It returns the newest one, which is of a lower
// generation, or of none, where ours leads without having been promoted.
func (p *promoting) promote(ctx context.Context, store driver.Store) (intent leader.Intent, err error) {
	budget := min(p.app.timeout, p.timeout)
	err = bounded(ctx, budget, func(ctx context.Context) (err error) {
		intent, err = leader.Promote(ctx, store, p.app.config(budget), p.generation, p.opts)
		return err
	})
	if err == nil && intent.Generation > p.generation {
		err = &leader.OvertakenError{Wanted: p.generation, Promoted: intent}
	}
	return intent, err
}

// advised returns err with what a person can do where the generation is too
// low. What a fence itself advises is for servers.
func advised(err error) error {
	var fenced *fence.Error
	var overtaken *leader.OvertakenError
	var aborted *leader.AbortedError
	var unknown *leader.NotHandedOutError
	switch {
	case errors.As(err, &fenced) && fenced.Superseded():
		return fmt.Errorf("superseded: the newest token is %v, of %s: %s", fenced.Current, holder(fenced.By), goHigher)
	case errors.As(err, &overtaken), errors.As(err, &aborted):
		return fmt.Errorf("%w: %s", err, goHigher)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w (`fencepost generation reserve %v`, --force)", err, unknown.Generation)
	default:
		return err
	}
}

const goHigher = "promote a higher generation; `fencepost generation next` hands one out"

// say tells people how far it is. When that fails, the promotion still goes on.
func (p *promoting) say(format string, args ...any) {
	if !p.app.json {
		_, _ = fmt.Fprintf(printable{p.app.env.Stdout}, format+"\n", args...)
	}
}

// answer prints the whole once, for programs; people were told line by line.
func (p *promoting) answer(v promoted) error {
	return p.app.show(v, func(io.Writer) error { return nil })
}

// who names user and host of whoever runs the command.
func (a *app) who() string {
	name := cmp.Or(a.env.Getenv("USER"), a.env.Getenv("LOGNAME"), "unknown")
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return strings.ToValidUTF8(name[:min(len(name), leader.MaxBy)], "")
}

// whoAndWhy adds the flags of a command that the history shows.
func whoAndWhy(cmd *cobra.Command, by, reason *string) {
	cmd.Flags().StringVar(by, "by", "", "who asks, for people; default is user and host")
	cmd.Flags().StringVar(reason, "reason", "", "why, for the history")
}

// checkWhoAndWhy completes the name, and refuses what the board would not take.
func (a *app) checkWhoAndWhy(by *string, reason string) error {
	if *by == "" {
		*by = a.who()
	}
	if len(*by) > leader.MaxBy || !utf8.ValidString(*by) {
		return fmt.Errorf("--by has %d bytes, want at most %d of UTF-8", len(*by), leader.MaxBy)
	}
	if len(reason) > catalog.MaxReason || !utf8.ValidString(reason) {
		return fmt.Errorf("--reason has %d bytes, want at most %d of UTF-8", len(reason), catalog.MaxReason)
	}
	return nil
}

// why returns a reason as a part of a line.
func why(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + cell(reason) + ")"
}
