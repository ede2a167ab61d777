package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/ownfile"
)

// A request to the claimer is the content of the -claim file, since the claim
// keeps the database locked: the length, a checksum and the request itself,
// written by one call. A torn one is no request.
const requestHeader = 8

var _ driver.Preempter = (*Store)(nil)

// Preempt implements [driver.Preempter]. Without a -claim file nobody claims.
func (s *Store) Preempt(_ context.Context, request []byte) error {
	const op = "preempt"
	if err := s.checkSize(op, len(request), driver.MaxRequest); err != nil {
		return err
	}
	return s.wrap(op, s.onClaimFile(os.O_RDWR, func(f *os.File) error {
		_, err := f.WriteAt(sealRequest(request), 0)
		return err
	}), false)
}

// Preempted implements [driver.Preempter].
func (s *Store) Preempted(context.Context) (request []byte, err error) {
	err = s.onClaimFile(os.O_RDONLY, func(f *os.File) error {
		sealed := make([]byte, requestHeader+driver.MaxRequest)
		n, err := f.ReadAt(sealed, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		request = openRequest(sealed[:n])
		return nil
	})
	return request, s.wrap("preempted", err, false)
}

// onClaimFile calls fn with the -claim file, if there is one and it has no second
// name: what is written must not reach another file. Closing this descriptor
// releases no lock: the file's locks belong to the descriptor by which they were
// taken.
func (s *Store) onClaimFile(flag int, fn func(*os.File) error) error {
	f, err := ownfile.Open(s.path+claimEnding, flag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkFile(f.Name(), info)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := fn(f); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())
	}
	return f.Close()
}

func sealRequest(request []byte) []byte {
	sealed := binary.BigEndian.AppendUint32(nil, uint32(len(request)))
	sealed = binary.BigEndian.AppendUint32(sealed, crc32.ChecksumIEEE(request))
	return append(sealed, request...)
}

// openRequest returns what sealRequest sealed, or nil.
func openRequest(sealed []byte) []byte {
	if len(sealed) < requestHeader {
		return nil
	}
	size, sum, request := binary.BigEndian.Uint32(sealed), binary.BigEndian.Uint32(sealed[4:]), sealed[requestHeader:]
	if int64(size) > int64(len(request)) || crc32.ChecksumIEEE(request[:size]) != sum {
		return nil
	}
	return request[:size]
}
