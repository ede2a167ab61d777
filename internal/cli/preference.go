package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/exitcodes"
)

func (a *app) preferenceCommand() *cobra.Command {
	var admin string
	cmd := &cobra.Command{
		Use:   "preference not-to-lead|none --admin HOST:PORT",
		Short: "Have a process leave the lead to others, as on a host that is drained, or no longer",
		Long: `Preference asks a process, by its admin API on this host, to claim only if no other
process of its generation does (not-to-lead), or takes that back (none). A holder
goes on leading: see ` + "`fencepost step-down`" + `. The wish lasts until it is taken back
or the process ends.`,
		Example: `  fencepost preference not-to-lead --admin 127.0.0.1:7001
  fencepost preference none --admin 127.0.0.1:7001`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"not-to-lead", "none"},
	}
	cmd.Flags().StringVar(&admin, "admin", "", "`HOST:PORT` of the process's admin API; default is $"+adminEnv)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		admin, err := a.adminAddress(admin)
		if err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error { return a.prefer(ctx, admin, args[0] == "not-to-lead") })(cmd, args)
	}
	return cmd
}

func (a *app) prefer(ctx context.Context, admin string, notToLead bool) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var answer steppedDown
	if err := postAdmin(ctx, admin, "/api/leader/preference", map[string]bool{"prefer_not_to_lead": notToLead}, &answer); err != nil {
		return exitcodes.With(fmt.Errorf("the preference is not changed, as far as is known: %w", err), exitcodes.None)
	}
	return a.show(answer, func(w io.Writer) error {
		what := "waits for nobody before it claims, but by its priority"
		if notToLead {
			what = "leaves the lead to others"
		}
		_, err := fmt.Fprintf(w, "the process at %s %s\n", admin, what)
		return err
	})
}
