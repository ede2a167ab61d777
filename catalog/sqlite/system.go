package sqlite

import (
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/errno"
)

// bySystem returns what an error of the operating system means.
func bySystem(err error) driver.Class { return errorTable.Of(err).Class(false) }

// ofSystem holds what the operating system says of a file.
func ofSystem() driver.Family {
	var own []driver.Entry
	add := func(is error, class driver.Class, rows ...[2]string) {
		for _, row := range rows {
			e := driver.Line(row[0], "", class, driver.Unknown, row[1])
			e.Is = is
			own = append(own, e)
		}
	}
	add(driver.ErrFull, retry(remedyFull+"; for a watch, raise fs.inotify.max_user_watches"),
		[2]string{"ENOSPC", "the disk is full, or the kernel takes no more watches: both pass"},
		[2]string{"EDQUOT", "the user's share of the disk is used up"})
	add(nil, retry("give this process more open files"),
		[2]string{"EMFILE", "this process has as many files open as it may, or as many watches"},
		[2]string{"ENFILE", "this host has as many files open as it can"})
	add(nil, retry(""),
		[2]string{"EAGAIN", "another process has the lock for now"},
		[2]string{"EINTR", "a signal came in between"},
		[2]string{"EBUSY", "the file is in use by the system for now"},
		[2]string{"EDEADLK", "two processes wait for each other's lock; the kernel refused one"},
		[2]string{"ENOLCK", "the kernel has no more locks for now"},
		[2]string{"ECANCELED", "the operation was called off"})
	add(nil, config(remedyMount), [2]string{"EROFS", "the file system is mounted for reading only"})
	add(nil, config(remedyRights),
		[2]string{"EACCES", "this user may not do that to the file"},
		[2]string{"EPERM", "this user may not do that, or the file was made immutable"})
	add(nil, config("create the folder, or name another file"),
		[2]string{"ENOENT", "the folder is not there; making it could hide a mistyped path"},
		[2]string{"ENOTDIR", "the path leads through a file"},
		[2]string{"EISDIR", "the path is a folder's"},
		[2]string{"ENAMETOOLONG", "the path is longer than the system takes"},
		[2]string{"ELOOP", "the path leads in a circle of links"})
	add(nil, config("use a file system that locks files and takes large ones"),
		[2]string{"ENOSYS", "the file system lacks what SQLite needs"},
		[2]string{"ENOTSUP", "the file system lacks what SQLite needs, such as locks"},
		[2]string{"EFBIG", "the file is larger than the file system or this user's limit takes"})
	add(nil, config("put the file on a local disk"),
		[2]string{"ESTALE", "the file lies on another host's disk and was replaced there"})
	add(nil, halt(remedyDisk),
		[2]string{"EIO", "the disk failed; after a sync that failed, what is on it is not known, and a second sync proves nothing"},
		[2]string{"ENXIO", "the disk has gone"},
		[2]string{"ENODEV", "the disk has gone"},
		[2]string{"ENOMEDIUM", "the disk has gone"},
		[2]string{"EREMOTEIO", "the disk failed, on another host or bus"},
		[2]string{"ETIMEDOUT", "the disk did not answer in time"},
		[2]string{"ENOLINK", "the way to the disk is cut"},
		[2]string{"ESHUTDOWN", "the file system was shut down under us"},
		[2]string{"EHWPOISON", "a page of memory is broken"},
		[2]string{"ENODATA", "a sector of the disk can't be read"})
	add(nil, halt(remedyMemory), [2]string{"ENOMEM", "this process or host is short of memory"})
	add(driver.ErrCorrupt, broken(remedyCorrupt),
		[2]string{"EFSCORRUPTED", "the file system itself is damaged"},
		[2]string{"EBADMSG", "the file system's checksum says that the data are not what was written"},
		[2]string{"EILSEQ", "the disk's checksum says that the data are not what was written"})
	add(nil, bug(),
		[2]string{"EBADF", "a file was used after its end, or by somebody who does not own it"},
		[2]string{"EFAULT", "memory that is none was handed to the kernel"},
		[2]string{"EINVAL", "the kernel was asked for something that makes no sense, and nobody knows what"},
		[2]string{"EEXIST", "there is such a file already, and only a defect asks for a new one"})
	return errno.Family("", own)
}
