package exitcodes

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ReadRecord reads the ending record at path. The error matches fs.ErrNotExist
// if there is none. Only a file is read: a pipe could keep the reader waiting.
func ReadRecord(path string) (Record, error) {
	data, err := readFile(path)
	if err == nil && len(data) == 0 {
		err = os.ErrNotExist
	}
	var r Record
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return Record{}, fmt.Errorf("reading the ending record in %s: %w", path, err)
	}
	return r, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is no file"))
	}
	return io.ReadAll(io.LimitReader(f, MaxRecordSize+1))
}

// WriteRecord writes r to path as one line of at most [MaxRecordSize] bytes. A
// reader sees all of it or nothing, except if the path is a device or a mount, or
// the file can't be replaced by one of the same owner. The file keeps its mode; a
// new one has 0644 less the umask. A pipe that has no reader is an error at once,
// and one whose reader has stopped after 100 ms.
func WriteRecord(path string, r Record) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	if old, ok := replaceable(path); ok && replace(path, old, line) == nil {
		return nil
	}
	if err := writeInto(path, line); err != nil {
		return fmt.Errorf("writing the ending record: %w", err)
	}
	return nil
}

// writeInto writes to what is there, whatever it is, without waiting for a reader.
func writeInto(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK, newMode)
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("%w: nobody reads this pipe", err)
	}
	if err != nil {
		return err
	}
	_ = f.SetWriteDeadline(time.Now().Add(patience)) // a file takes none, and needs none
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

const newMode = 0o644

// replaceable reports whether path may be replaced by renaming, and what is there;
// nil for nothing. Kubernetes' file is watched by its inode, and a link or device
// must stay what it is.
func replaceable(path string) (old os.FileInfo, ok bool) {
	old, err := os.Lstat(path)
	if err != nil {
		return nil, os.IsNotExist(err)
	}
	return old, old.Mode().IsRegular() && path != kubernetesLog
}

func replace(path string, old os.FileInfo, line []byte) error {
	tmp, err := os.OpenFile(filepath.Join(filepath.Dir(path), ".ending-"+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, newMode)
	if err != nil {
		return err
	}
	if old != nil {
		err = takeAfter(tmp, old)
	}
	if err == nil {
		_, err = tmp.Write(line)
	}
	if closing := tmp.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the plain write that follows is what counts
	}
	return err
}

// RecordPath returns where a process leaves its ending record: what getenv
// gives for [TerminationLogEnv], else Kubernetes' /dev/termination-log where
// that exists and can be written. It returns "" where neither is there.
func RecordPath(getenv func(string) string) string {
	if path := getenv(TerminationLogEnv); path != "" {
		return path
	}
	f, err := os.OpenFile(kubernetesLog, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	_ = f.Close() // nothing was written
	return kubernetesLog
}
