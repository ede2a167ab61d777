package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/leader"
)

func (a *app) stepDownCommand() *cobra.Command {
	var admin, reason string
	var force bool
	cmd := &cobra.Command{
		Use:   "step-down --admin HOST:PORT",
		Short: "Have the holder hand the token to a standby, as before maintenance",
		Long: `Step-down asks the holder, by its admin API on this host, to finish its work and
offer the token to any standby of its generation. It ends with 0 once one has
claimed; the process that stepped down is a standby then, without a restart. To
keep it from leading again while others can, say ` + "`fencepost preference not-to-lead`" + `.

It ends with 1 if the process does not lead, if no standby is ready, and if none
has claimed in time: then the holder goes on leading, and nothing has changed.
Without a standby that is ready the holder refuses, and its work is not paused;
--force has it offer the token nevertheless, and wait.`,
		Example: `  fencepost step-down --admin 127.0.0.1:7001 --reason 'host is drained'`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&admin, "admin", "", "`HOST:PORT` of the holder's admin API; default is $"+adminEnv)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the status and the logs")
	cmd.Flags().BoolVar(&force, "force", false, "pause the work and offer the token even if no standby is ready")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		admin, err := a.adminAddress(admin)
		if err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error {
			return a.stepDown(ctx, admin, cmp.Or(reason, "asked by "+a.who()), force)
		})(cmd, args)
	}
	return cmd
}

// adminAddress is the address of the admin API that a command is for.
func (a *app) adminAddress(flag string) (string, error) {
	admin := cmp.Or(flag, a.env.Getenv(adminEnv))
	if admin == "" {
		return "", fmt.Errorf("no address: give --admin or %s", adminEnv)
	}
	return admin, checkAdmin(admin)
}

const (
	longestStep  = 30 * time.Second // a holder answers after twice its HandoverTimeout at the latest
	mostAnswered = 1 << 20
)

// A steppedDown is the answer in JSON: how the process stands now.
type steppedDown struct {
	Status leader.Status `json:"status"`
}

func (a *app) stepDown(ctx context.Context, admin, reason string, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, max(a.timeout, longestStep))
	defer cancel()
	answer, err := postStepDown(ctx, admin, reason, force)
	if err != nil {
		return exitcodes.With(fmt.Errorf("not stepped down: %w", err), exitcodes.None)
	}
	return a.show(answer, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "stepped down: the process at %s is %v now\n", admin, answer.Status.Phase)
		return err
	})
}

func postStepDown(ctx context.Context, admin, reason string, force bool) (answer steppedDown, err error) {
	err = postAdmin(ctx, admin, "/api/leader/step-down", map[string]any{"reason": reason, "force": force}, &answer)
	return answer, err
}

// postAdmin asks an admin API, and reads its answer into one that it may fill.
func postAdmin(ctx context.Context, admin, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+admin+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := direct(req)
	if err != nil {
		return fmt.Errorf("%w: give the process's admin address, which `fencepost status` shows, on its own host", err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswered))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(refusalOf(said, fmt.Sprintf("%s answers %s: it is no admin API of a process that leads or could", admin, resp.Status)))
	}
	return json.Unmarshal(said, answer)
}

// refusalOf is what an admin API said against a request.
func refusalOf(said []byte, status string) string {
	var refused struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(said, &refused) != nil || refused.Error == "" {
		return status
	}
	return refused.Error
}
