// Package errorlists compares PostgreSQL's own lists of SQLSTATEs, as other
// projects and the installed server ship them, with the driver's table. It has
// tests only.
package errorlists
