// Package work runs durable jobs in the process that holds a catalog's token.
//
// A job is enqueued in the same commit as the state that it belongs to, so there is
// no job without its state, and no state without its job. The holder runs it. What
// the run changes in the catalog can be committed together with the completion, and
// then happens exactly once; what it does elsewhere happens at least once, with a
// token that a guard can check.
//
//	Enqueue ─► waiting ──── claim ────► running ─── completed ──► gone
//	              ▲                      │  │ │
//	              │◄─ backoff ── failed ─┘  │ └── exhausted, permanent, abandoned ──► dead list
//	              │◄────────── stopped ─────┘                                            │
//	              └──────────────────────────── Retry, by a person ◄─────────────────────┘
//
// # Recovery
//
// A job claimed under a token is an orphan from the moment at which a higher token is
// committed. The new holder takes orphans by the same claim as everything else, so
// there is no recovery step, no heartbeat and no time-out, and nothing runs twice
// under one token. The old holder can complete nothing any more: its commits are
// refused. If it was superseded by a deploy, or was asked to stop, the interruption
// costs no attempt. If it crashed, it does, so a job that kills its process ends on
// the dead list.
//
// # States
//
// A job's state is derived from the job, its claim, the token, the kinds and the time.
// None is stored: see [State]. A pass is a plan, which is a pure function of these, and
// its execution in one commit. A pass may be made at any time, and any number of times.
//
// # Where to find what
//
//	what a kind of jobs is              kind.go
//	what is stored                      record.go
//	which job may run, and in which order   book.go, lane.go
//	what a pass decides                 plan.go
//	what it writes                      write.go
//	when passes are made                dispatch.go
//	what processes without the token ask for   inbox.go
//	what people do                      admin.go
//	what people see                     status.go
//
// # What is not decided here
//
// Whether anybody leads: if no process holds the token, nothing runs. Steps with
// compensation: a run is one function, and undoing is the application's. More than one
// machine: all jobs run in the holder. docs/work.md says what to use then.
package work
