// Package supervisors has only tests: the files in examples/supervisors are
// what their supervisors understand, and systemd and supervisord, run for real
// with those files, do with each exit code what docs/supervisors.md says.
package supervisors
