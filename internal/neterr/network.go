package neterr

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/errno"
)

// Context returns how a call ends by itself.
func Context() driver.Family {
	return driver.Family{
		Name: "context", Source: "the errors of Go's context",
		Entries: []driver.Entry{
			Is(context.DeadlineExceeded, "context.DeadlineExceeded", retry(""), driver.Unknown,
				"the deadline is the catalog's: the store is down, cut off or too slow, or its answer was lost"),
			Is(context.Canceled, "context.Canceled", driver.Class{Disposition: exitcodes.None}, driver.Unknown,
				"somebody no longer wants the answer; that recalls nothing that was sent"),
		},
	}
}

// System returns what the operating system says of a socket.
func System(r Remedies) driver.Family {
	var own []driver.Entry
	add := func(class driver.Class, rows ...[2]string) {
		for _, row := range rows {
			own = append(own, driver.Line(row[0], "", class, driver.Unknown, row[1]))
		}
	}
	add(retry(""),
		[2]string{"ECONNREFUSED", "nobody listens there: the server is down or restarting"},
		[2]string{"ECONNRESET", "the other side dropped the connection: it was killed, restarted, or a firewall forgot it"},
		[2]string{"ECONNABORTED", "the connection was dropped by this host, such as on losing its address"},
		[2]string{"EPIPE", "the other side had closed the connection before we wrote"},
		[2]string{"ETIMEDOUT", "no answer came to what was sent: a lost host, or packets dropped on the way"},
		[2]string{"EHOSTUNREACH", "no way to the host now: routes and hosts come back"},
		[2]string{"EHOSTDOWN", "the host does not answer on its own network"},
		[2]string{"ENETUNREACH", "no way to the network now, such as while this host starts"},
		[2]string{"ENETDOWN", "this host's interface is down"},
		[2]string{"ENETRESET", "the connection broke as the network changed"},
		[2]string{"EADDRNOTAVAIL", "no free local port, or the address has gone: both pass"},
		[2]string{"EADDRINUSE", "the local port is taken for now"},
		[2]string{"ENOTCONN", "the connection had ended already"},
		[2]string{"ESHUTDOWN", "the connection had been shut for writing already"},
		[2]string{"EAGAIN", "the kernel asks for another try; for a socket's file, the server's queue is full"},
		[2]string{"EINTR", "a signal came in between"},
		[2]string{"EALREADY", "an earlier attempt to connect is still under way"},
		[2]string{"EINPROGRESS", "the attempt to connect is under way"},
		[2]string{"ENOBUFS", "the kernel is short of memory for sockets"},
		[2]string{"ENOMEM", "this host is short of memory"},
		[2]string{"EPROTO", "the network's answer made no sense; a new connection gets another"},
		[2]string{"EIO", "the way to the host fails below the socket, such as in a tunnel"},
		[2]string{"ENONET", "this host has no network for now"},
		[2]string{"ECANCELED", "the attempt was called off"},
		[2]string{"ECOMM", "sending failed below the socket"},
	)
	add(retry("raise the limit of open files"),
		[2]string{"EMFILE", "this process has as many files open as it may"},
		[2]string{"ENFILE", "this host has as many files open as it can"})
	add(retry(r.Start), [2]string{"ENOENT", "the socket's file, which a running server makes, is not there"})
	add(retry(r.Address), [2]string{"EPERM", "a rule of this host forbids the connection, or its load balancer has no server behind the address now, as some say it"})
	add(config(r.Address),
		[2]string{"EACCES", "the socket's file is not this user's to use, or a rule of this host forbids the connection"},
		[2]string{"EAFNOSUPPORT", "this host has no such kind of address, such as IPv6"},
		[2]string{"EPFNOSUPPORT", "this host has no such kind of socket"},
		[2]string{"EPROTONOSUPPORT", "this host has no such protocol"},
		[2]string{"ESOCKTNOSUPPORT", "this host has no such kind of socket"},
		[2]string{"EPROTOTYPE", "the socket's file is of another kind of socket"},
		[2]string{"ENOTSOCK", "the path is no socket"},
		[2]string{"ENOTDIR", "the socket's path leads through a file"},
		[2]string{"ELOOP", "the socket's path leads in a circle of links"},
		[2]string{"ENAMETOOLONG", "the socket's path is longer than the kernel takes: 107 bytes"})
	add(bug(),
		[2]string{"EBADF", "a socket was used after its end, or by somebody who does not own it"},
		[2]string{"EFAULT", "memory that is none was handed to the kernel"},
		[2]string{"EINVAL", "the kernel was asked for something that makes no sense, and nobody knows what"},
		[2]string{"EISCONN", "a connected socket was to be connected again"},
		[2]string{"EDESTADDRREQ", "something was sent over a socket that leads nowhere"},
		[2]string{"EMSGSIZE", "a message was too long for a socket of packets, which no driver uses"})
	return errno.Family("", own)
}

// Network returns what a connection ends with where no number of the operating
// system says it. Types that only wrap come last: what they wrap decides first.
func Network(r Remedies) driver.Family {
	return driver.Family{
		Name: "network", Source: "the errors of Go's io, os and net",
		Entries: []driver.Entry{
			As("net.DNSError: not found", "no such host", func(e *net.DNSError) bool { return e.IsNotFound }, retry(r.Name), driver.Unknown,
				"names come up with their hosts, and name servers lag behind; a wrong name lasts, and the text shows it"),
			As("net.DNSError: timeout", "name server did not answer", func(e *net.DNSError) bool { return e.IsTimeout }, retry(r.Name), driver.Unknown,
				"the name server is slow or cut off"),
			As[*net.DNSError]("net.DNSError", "the name can't be looked up", nil, retry(r.Name), driver.Unknown, "the name server fails for now"),
			As[*net.DNSConfigError]("net.DNSConfigError", "error reading DNS config", nil, retry(r.Name), driver.Unknown, "this host's list of name servers can't be read, such as while it is being written"),
			Is(io.EOF, "io.EOF", retry(""), driver.Unknown, "the other side ended the connection"),
			Is(io.ErrUnexpectedEOF, "io.ErrUnexpectedEOF", retry(""), driver.Unknown, "the other side ended the connection in the middle of a message"),
			Is(io.ErrClosedPipe, "io.ErrClosedPipe", retry(""), driver.Unknown, "the connection was closed on this side, such as by its owner's deadline"),
			Is(io.ErrNoProgress, "io.ErrNoProgress", retry(""), driver.Unknown, "the connection gives neither bytes nor an end; a new one does"),
			Is(net.ErrClosed, "net.ErrClosed", retry(""), driver.Unknown, "the connection was closed on this side, such as by its owner's deadline"),
			Is(os.ErrDeadlineExceeded, "os.ErrDeadlineExceeded", retry(""), driver.Unknown, "the socket's deadline passed: the store is slow or cut off"),
			Is(io.ErrShortWrite, "io.ErrShortWrite", bug(), driver.Unknown, "a writer broke its contract"),
			Is(io.ErrShortBuffer, "io.ErrShortBuffer", bug(), driver.Unknown, "a reader was given too little room"),
			Is(net.ErrWriteToConnected, "net.ErrWriteToConnected", bug(), driver.Unknown, "of packets, which no driver sends"),
			As[*net.AddrError]("net.AddrError", "the address makes no sense", nil, config(r.Address), driver.Unknown, "no such address can exist, so that waiting helps nobody"),
			As[*net.ParseError]("net.ParseError", "the address can't be read", nil, config(r.Address), driver.Unknown, "no such address can exist, so that waiting helps nobody"),
			As[net.InvalidAddrError]("net.InvalidAddrError", "the address is invalid", nil, config(r.Address), driver.Unknown, "no such address can exist, so that waiting helps nobody"),
			As[net.UnknownNetworkError]("net.UnknownNetworkError", "unknown network", nil, config(r.Address), driver.Unknown, "neither TCP nor a socket's file was asked for"),
			timeout(),
		},
	}
}

// Other returns the entry for what comes from a connection and says nothing
// more. It is the last to be asked.
func Other() driver.Family {
	return driver.Family{
		Name: "connection", Source: "the types of Go's net that wrap others",
		Entries: []driver.Entry{
			As[*net.OpError]("net.OpError", "a socket's operation failed", nil, retry(""), driver.Unknown, "what it wraps is no better known; networks come back"),
			As[net.Error]("net.Error", "a network error", nil, retry(""), driver.Unknown, "it calls itself one of the network; networks come back"),
		},
	}
}

func timeout() driver.Entry {
	e := driver.Line("net.Error: timeout", "i/o timeout", retry(""), driver.Unknown, "whatever it was, it took too long")
	e.Match = func(err error) bool {
		var n net.Error
		return errors.As(err, &n) && n.Timeout()
	}
	return e
}
