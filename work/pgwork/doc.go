// Package pgwork enqueues jobs from processes that don't hold the token, such as web
// servers, inside their own transactions on the catalog's PostgreSQL database.
//
// The promise: a request is in the holder's inbox if and only if the transaction has
// committed, and each becomes exactly one job. It is a row that the transaction
// inserts, so it shares the fate of whatever else the transaction writes: it is lost
// or kept with that by a rollback, a crash, a fail-over and a restored backup.
//
// The requests of one key become jobs in the order in which their transactions have
// committed. [EnqueueTx] takes a lock of the key for that, until the transaction
// ends: a second transaction that enqueues a job of the key waits. Two transactions
// that enqueue jobs of several keys in different orders can deadlock, which PostgreSQL
// ends by 40P01 for one of them. [Unordered] leaves the lock out; jobs without a key
// need none.
//
// What is asked of the connection is what any statement with parameters asks: the
// search_path, the isolation level and a pooler in transaction mode don't matter, and
// pgx prepares the statement, or not, as the connection is set up.
//
// The holder reads its inbox when [Enqueued.Wake] is called, and otherwise every
// work.Config.Poll. A wake-up is a hint: nothing is lost with it but time.
//
// The package decides nothing about jobs. What it calls are two functions in schema
// fencepost, which [Install] puts there, and which any language may call: see
// docs/work.md.
package pgwork
