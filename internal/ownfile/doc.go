// Package ownfile makes files that the service can use, whoever makes them.
//
// The first process that opens a catalog, or a gate's registers, creates their files,
// and often that is an operator's command as root. Every file must then be usable by
// the service: a new file gets the owner and mode of its folder, and each lock file
// beside it those of the file.
//
// Owner and mode are set through the descriptor of a file that this process has just
// created under a name of its own, and only then does the file get its name. So no
// other process meets a file that it may not open yet, no link is followed, and no
// file that was there before changes.
package ownfile
