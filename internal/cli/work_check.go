package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/work"
)

// A workChecking is one check command.
type workChecking struct {
	app   *app
	th    work.Thresholds
	sinks alertSinks
}

// webhookEnv names the variable with the URL of --webhook, which may be a secret.
const webhookEnv = "FENCEPOST_WORK_WEBHOOK"

func (a *app) workCheckCommand() *cobra.Command {
	c := &workChecking{app: a}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the jobs, as a monitor from cron",
		Long: `Check prints every alert that there is, whether it fires or not: jobs that wait, run
or are blocked for too long, dead ones, unknown kinds, jobs whose owner is gone,
orphans and requests that nobody takes, and entries that can't be read. docs/work.md
has the list. Keys stay the same, such as work/stale/sync, so that a pager closes
what it has opened. It needs the URL of the store and nothing of the service.

Limits come from the environment: FENCEPOST_WORK_STALE, _SLOW and _BLOCKED, each such
as 20m,sync=5m,dump=off; FENCEPOST_WORK_UNKNOWN, _STRANDED, _ORPHANS, _SILENT and
_INBOX, each such as 15m or off; FENCEPOST_WORK_DEAD, a number.

--notify has /bin/sh run COMMAND once for each alert, those that fire first, with
FENCEPOST_ALERT_KEY, FENCEPOST_ALERT_STATE (firing or resolved),
FENCEPOST_ALERT_SUMMARY, FENCEPOST_ALERT_REMEDY, FENCEPOST_ALERT_SINCE and
FENCEPOST_ALERT_STORE. --webhook posts all alerts as one JSON object. Each may take
--notify-timeout in all; one that fails stops no other.

Exit statuses: 0 nothing fires; 1 something does; 2 it could not look, or could not
tell a sink that nothing fires, so nothing is known. If it could not look, the alert
work/check fires; it is resolved otherwise. 64 says that the command line or a limit
is wrong: then it has not tried to look, and told nobody.`,
		Example: `  fencepost work check
  * * * * * FENCEPOST_WORK_STALE=15m,dump=2h fencepost work check --notify /etc/app/page.sh
  fencepost work check --json | jq '.alerts[] | select(.firing)'`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&c.sinks.commands, "notify", nil, "`COMMAND` that is run for each alert; may be given several times")
	flags.StringVar(&c.sinks.webhook, "webhook", "", "`URL` that all alerts are posted to, https, or http on loopback; default is $"+webhookEnv)
	flags.DurationVar(&c.sinks.timeout, "notify-timeout", 30*time.Second, "how long each --notify, and --webhook, may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if c.th, err = work.ThresholdsFrom(a.env.Getenv); err != nil {
			return err
		}
		c.sinks.webhook = cmp.Or(c.sinks.webhook, a.env.Getenv(webhookEnv))
		if err := c.sinks.check(); err != nil {
			return err
		}
		return a.action(c.run)(cmd, args)
	}
	return cmd
}

// A workChecked is the answer in JSON.
type workChecked struct {
	Store   string       `json:"store"`
	At      time.Time    `json:"at"`
	Looked  bool         `json:"looked"` // false: work/check says why
	Firing  int          `json:"firing"`
	Alerts  []work.Alert `json:"alerts"`
	Failing []string     `json:"failing_sinks"`
}

const checkKey = "work/check"

func (c *workChecking) run(ctx context.Context) error {
	checked := workChecked{At: time.Now().UTC().Round(0), Failing: []string{}}
	looked := c.app.withReadStore(ctx, func(ctx context.Context, store driver.Store) error {
		s, err := c.app.readWorkStatus(ctx, store)
		if err == nil {
			checked.Alerts = work.Check(s.Status, s.Inbox, c.th)
		}
		return err
	})
	checked.Store, checked.Looked = c.app.name, looked == nil
	self := work.Alert{Key: checkKey, Summary: "the status can be read"}
	if looked != nil {
		self = work.Alert{
			Key: checkKey, Firing: true, Value: 1, Since: checked.At,
			Summary: "the status can't be read: " + exitcodes.OneLine(looked.Error()), Remedy: "fencepost status says whether the store is there",
		}
	}
	checked.Alerts = append(checked.Alerts, self)
	checked.Firing = len(work.Firing(checked.Alerts))
	untold := c.sinks.tell(ctx, c.app.env, checked)
	for _, err := range untold {
		checked.Failing = append(checked.Failing, exitcodes.OneLine(err.Error()))
	}
	if err := c.app.show(checked, checked.print); err != nil {
		return couldNot(err)
	}
	switch {
	case looked != nil:
		return couldNot(looked)
	case checked.Firing > 0:
		c.app.code = exitcodes.Failure
		return nil
	case len(untold) > 0:
		return couldNot(fmt.Errorf("nothing fires, and %d sinks could not be told so", len(untold)))
	}
	return nil
}

// couldNot returns err with the status that says that nothing is known.
func couldNot(err error) error { return exitcodes.WithCode(err, exitcodes.PanicExit) }

// print has one line for each alert, those that fire first.
func (c workChecked) print(w io.Writer) error {
	for _, a := range firingFirst(c.Alerts) {
		line := fmt.Sprintf("%-8s  %s  %s", a.State(), cell(a.Key), cell(a.Summary))
		if a.Remedy != "" {
			line += "  → " + cell(a.Remedy)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	for _, f := range c.Failing {
		if _, err := fmt.Fprintln(w, "not told ", cell(f)); err != nil {
			return err
		}
	}
	return nil
}

func firingFirst(alerts []work.Alert) (sorted []work.Alert) {
	for _, firing := range []bool{true, false} {
		for _, a := range alerts {
			if a.Firing == firing {
				sorted = append(sorted, a)
			}
		}
	}
	return sorted
}
