package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/exitcodes"
)

// adminEnv names the variable with the address of a server's admin API.
const adminEnv = "FENCEPOST_ADMIN"

// mostSaid is how much of an answer is shown.
const mostSaid = 4096

func (a *app) healthCommand() *cobra.Command {
	var admin string
	cmd := &cobra.Command{
		Use:   "health live|standby|leader",
		Short: "Ask a server on this host how it is, as a probe",
		Long: `Health asks the admin API of a server on this host, or of fencepost run where
that is parked, one of three questions:

  live     is it up, or parked?           /livez
  standby  has it read everything?        /readyz/standby
  leader   does it lead and serve?        /readyz/leader

It ends with 0 for yes and 1 for everything else. The API answers on loopback
only, so probes of a container run this inside of it. Readiness is standby: a
rolling update that waited for the new process to lead would wait for ever.`,
		Example: `  fencepost health live --admin 127.0.0.1:7001
  FENCEPOST_ADMIN=127.0.0.1:7001 fencepost health standby`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"live", "standby", "leader"},
	}
	cmd.Flags().StringVar(&admin, "admin", "", "`HOST:PORT` of the admin API; default is $"+adminEnv)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		admin = cmp.Or(admin, a.env.Getenv(adminEnv))
		if admin == "" {
			return fmt.Errorf("no address: give --admin or %s", adminEnv)
		}
		if err := checkAdmin(admin); err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error { return a.health(ctx, admin, args[0]) })(cmd, args)
	}
	return cmd
}

// A healthy is a yes.
type healthy struct {
	Question string `json:"question"`
	Healthy  bool   `json:"healthy"`
	Said     string `json:"said"`
}

// health asks once. Whatever is no yes ends with 1, also where nobody answers:
// probes know no third answer.
func (a *app) health(ctx context.Context, admin, question string) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	said, err := ask(ctx, "http://"+admin+healthPath(question))
	if err != nil {
		return exitcodes.With(fmt.Errorf("not %s: %w", question, err), exitcodes.None)
	}
	return a.show(healthy{Question: question, Healthy: true, Said: said}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, said)
		return err
	})
}

func healthPath(question string) string {
	if question == "live" {
		return "/livez"
	}
	return "/readyz/" + question
}

// checkAdmin refuses what is no address, since more than that would lead elsewhere.
func checkAdmin(admin string) error {
	if _, _, err := net.SplitHostPort(admin); err != nil || strings.ContainsAny(admin, "/@?#") {
		return fmt.Errorf("the admin address %.64q is none: want HOST:PORT, such as 127.0.0.1:7001", admin)
	}
	return nil
}

// direct asks the admin API of this host, and nobody else: it uses no proxy and
// follows no redirect, which would carry the request to another process.
func direct(req *http.Request) (*http.Response, error) {
	t := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	return t.RoundTrip(req)
}

// ask returns what a probe's answer says, or else an error that says it.
func ask(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := direct(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostSaid))
	if err != nil {
		return "", err
	}
	said := exitcodes.OneLine(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, said)
	}
	return said, nil
}
