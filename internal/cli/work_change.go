package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/work"
)

// idsCommand is a command about jobs that are named by their IDs.
func (a *app) idsCommand(name, short, long, example string, note func(id work.ID) (work.Note, error)) (*cobra.Command, *asking) {
	q := &asking{app: a}
	cmd := &cobra.Command{Use: name + " ID...", Short: short, Long: long + askingHelp, Example: example}
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids, err := parseIDs(args)
		if err != nil {
			return err
		}
		var notes []work.Note
		for _, id := range ids {
			n, err := note(id)
			if err != nil {
				return err
			}
			notes = append(notes, n)
		}
		return q.run(cmd, notes...)
	}
	return cmd, q
}

// parseIDs reads the IDs of jobs, each once.
func parseIDs(args []string) (ids []work.ID, _ error) {
	if len(args) == 0 || len(args) > mostAsked {
		return nil, fmt.Errorf("there are the IDs of %d jobs, want 1 to %d", len(args), mostAsked)
	}
	named := map[work.ID]bool{}
	var errs []error
	for _, arg := range args {
		id, err := work.ParseID(arg)
		if err == nil && named[id] {
			err = fmt.Errorf("job %d is named twice", id)
		}
		named[id] = true
		ids, errs = append(ids, id), append(errs, err)
	}
	return ids, errors.Join(errs...)
}

func (a *app) workRetryCommand() *cobra.Command {
	cmd, _ := a.idsCommand("retry", "Run dead jobs again, or waiting ones at once",
		`Retry moves jobs from the dead list back, as if they had just been enqueued, and
ends the wait of live ones for their retry. A job that runs is left alone.`,
		`  fencepost work retry 17 18
  fencepost work list --state dead --kind sync --json | jq -r '.jobs[].id' | xargs -n 100 fencepost work retry`,
		func(id work.ID) (work.Note, error) { return work.Note{Op: work.OpRetry, ID: id}, nil })
	return cmd
}

func (a *app) workAbandonCommand() *cobra.Command {
	var reason string
	cmd, _ := a.idsCommand("abandon", "Give jobs up: they go to the dead list",
		`Abandon moves live jobs to the dead list. A run that is under way ends, and can't
complete its job any more. They stay on the list, and "fencepost work check" reports
them, until they are retried or cleared.`,
		`  fencepost work abandon 17 --reason 'crate was deleted, ticket 4711'`,
		func(id work.ID) (work.Note, error) {
			if n := len(reason); n == 0 || n > work.MaxReason {
				return work.Note{}, fmt.Errorf("abandon needs --reason TEXT of 1 to %d bytes, and got %d", work.MaxReason, n)
			}
			return work.Note{Op: work.OpAbandon, ID: id, Reason: reason}, nil
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever reads the dead list (required)")
	return cmd
}

func (a *app) workClearCommand() *cobra.Command {
	cmd, _ := a.idsCommand("clear", "Remove jobs from the dead list, for good",
		`Clear removes dead jobs, with their payloads. Nothing brings them back.`,
		`  fencepost work clear 17`,
		func(id work.ID) (work.Note, error) { return work.Note{Op: work.OpClear, ID: id}, nil })
	return cmd
}

func (a *app) workActivateCommand() *cobra.Command {
	q := &asking{app: a}
	cmd := &cobra.Command{
		Use:   "activate",
		Short: "Have the holder make a pass at once",
		Long: `Activate has the holder look for jobs that may run, at once. It does so by itself at
every commit and at every time at which a job is due, so this shows that it is there
and that its queue moves.` + askingHelp,
		Example: `  fencepost work activate`,
		Args:    cobra.NoArgs,
	}
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return q.run(cmd, work.Note{Op: work.OpActivate}) }
	return cmd
}

func (a *app) workReassignCommand() *cobra.Command {
	q := &asking{app: a}
	var gen, member string
	cmd := &cobra.Command{
		Use:   "reassign --generation N | --member NAME",
		Short: "Let the holder run jobs whose owner is gone for good",
		Long: `Reassign lets the holder run the jobs that are pinned to a generation below its own,
or to a member. Each says from then on whose it was. A job that runs now runs on.` + askingHelp,
		Example: `  fencepost work reassign --generation 7
  fencepost work reassign --member host-3`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&gen, "generation", "", "`N`, the generation that is over")
	cmd.Flags().StringVar(&member, "member", "", "`NAME` of the member that is gone")
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if (gen == "") == (member == "") {
			return errors.New("reassign needs --generation or --member, one of them")
		}
		n := work.Note{Op: work.OpReassign, Member: member}
		if len(member) > work.MaxName {
			return fmt.Errorf("--member has %d bytes, want at most %d", len(member), work.MaxName)
		}
		if gen != "" {
			if n.Generation, err = parseGeneration("reassign", gen); err != nil {
				return err
			}
		}
		return q.run(cmd, n)
	}
	return cmd
}

// An enqueuing is one enqueue command.
type enqueuing struct {
	asking
	note                          work.Note
	text, file, runAt, generation string
	in                            time.Duration
}

func (a *app) workEnqueueCommand() *cobra.Command {
	e := &enqueuing{asking: asking{app: a}}
	cmd := &cobra.Command{
		Use:   "enqueue --kind KIND",
		Short: "Enqueue a job from outside of the holder",
		Long: `Enqueue asks the holder to enqueue one job, and prints its ID. A kind that the holder
does not know is kept for one that does. If its queue is full, the request waits in
the inbox.` + askingHelp,
		Example: `  fencepost work enqueue --kind sync --key serde
  fencepost work enqueue --kind dump --payload-file job.json --in 1h --ref nightly-2026-11-30
  ./make-job | fencepost work enqueue --kind dump --payload-file -`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&e.note.Kind, "kind", "", "`KIND` of the job (required)")
	flags.StringVar(&e.note.Key, "key", "", "`KEY`, by which jobs of the kind are ordered")
	flags.StringVar(&e.text, "payload", "", "`TEXT` of the payload; no secrets, since command lines are seen by others")
	flags.StringVar(&e.file, "payload-file", "", "`FILE` with the payload, or - for standard input")
	flags.StringVar(&e.runAt, "run-at", "", "`TIME` at which the job may run first, such as 2026-11-30T18:00:00Z")
	flags.DurationVar(&e.in, "in", 0, "the same, from now on")
	flags.IntVar(&e.note.Priority, "priority", 0, "-1000 to 1000; jobs with a higher one run first, and those below 0 raise no alarm")
	flags.StringVar(&e.generation, "generation", "", "`N`, the only generation that may run the job")
	flags.StringVar(&e.note.Member, "member", "", "`NAME` of the only holder that may run the job")
	e.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := e.read(cmd); err != nil {
			return err
		}
		return e.run(cmd, e.note)
	}
	return cmd
}

// read makes the request of the command line.
func (e *enqueuing) read(cmd *cobra.Command) (err error) {
	if e.note.Op = work.OpEnqueue; e.note.Kind == "" {
		return errors.New("enqueue needs --kind KIND")
	}
	changed := cmd.Flags().Changed
	if changed("payload") && changed("payload-file") {
		return errors.New("the payload is given twice, by --payload and --payload-file")
	}
	if changed("run-at") && changed("in") {
		return errors.New("the time is given twice, by --run-at and --in")
	}
	if e.in < 0 {
		return fmt.Errorf("--in is %v, want 0 or more", e.in)
	}
	if e.in > 0 {
		e.note.RunAt = time.Now().Add(e.in)
	}
	if e.runAt != "" {
		if e.note.RunAt, err = time.Parse(time.RFC3339, e.runAt); err != nil {
			return fmt.Errorf("--run-at %q is no time: want a form like 2026-11-30T18:00:00Z", clipped(e.runAt))
		}
	}
	if e.generation != "" {
		if e.note.Generation, err = parseGeneration("enqueue", e.generation); err != nil {
			return err
		}
	}
	if e.note.Payload, err = e.payload(); err != nil {
		return err
	}
	n := e.note
	return work.Request{
		Kind: n.Kind, Key: n.Key, Payload: n.Payload, RunAt: n.RunAt, Priority: n.Priority, Generation: n.Generation, Member: n.Member,
	}.Check()
}

// payload reads the payload, and no more of it than any kind accepts.
func (e *enqueuing) payload() ([]byte, error) {
	if e.file == "" {
		return []byte(e.text), nil
	}
	from := e.app.env.Stdin
	if e.file != "-" {
		f, err := os.Open(e.file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, work.MaxPayload+1))
	if err == nil && len(data) > work.MaxPayload {
		err = fmt.Errorf("--payload-file has more than %d bytes: keep it elsewhere and enqueue where it is", work.MaxPayload)
	}
	return data, err
}
