package postgres

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// said returns what a server or pooler sends, one message after the other.
func said(t *testing.T, messages ...pgproto3.BackendMessage) (all []byte) {
	t.Helper()
	for _, m := range messages {
		var err error
		all, err = m.Encode(all)
		require.NoError(t, err)
	}
	return all
}

// heard reads all of it as a connection does that is being made, in pieces.
func heard(t *testing.T, all []byte) ([]byte, error) {
	t.Helper()
	whole, wholeErr := io.ReadAll(&login{from: bytes.NewReader(all)})
	pieces, err := io.ReadAll(iotest.OneByteReader(&login{from: iotest.OneByteReader(bytes.NewReader(all))}))
	require.Equal(t, whole, pieces)
	require.Equal(t, wholeErr, err)
	return whole, err
}

func TestOnlyAPoolersAnswerToAProofIsAboutThePassword(t *testing.T) {
	t.Parallel()
	pooler := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "m"}
	server := &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: "m", Routine: "r"}
	wrong := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "m"}
	sasl, proof := &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}}, &pgproto3.AuthenticationSASLContinue{Data: []byte("d")}
	final, ok := &pgproto3.AuthenticationSASLFinal{Data: []byte("d")}, &pgproto3.AuthenticationOk{}
	for name, c := range map[string]struct {
		messages []pgproto3.BackendMessage
		refused  bool
	}{
		"the proof":                {[]pgproto3.BackendMessage{sasl, proof, pooler}, true},
		"the proof, after notices": {[]pgproto3.BackendMessage{sasl, proof, &pgproto3.NoticeResponse{Code: "00000"}, pooler}, true},
		"nothing":                  {[]pgproto3.BackendMessage{pooler}, false},
		"the beginning":            {[]pgproto3.BackendMessage{sasl, pooler}, false},
		"a password":               {[]pgproto3.BackendMessage{&pgproto3.AuthenticationCleartextPassword{}, pooler}, false},
		"an MD5 password":          {[]pgproto3.BackendMessage{&pgproto3.AuthenticationMD5Password{}, pooler}, false},
		"a proof it confirmed":     {[]pgproto3.BackendMessage{sasl, proof, final, pooler}, false},
		"a query":                  {[]pgproto3.BackendMessage{sasl, proof, final, ok, &pgproto3.ReadyForQuery{TxStatus: 'I'}, pooler}, false},
		"a server's proof":         {[]pgproto3.BackendMessage{sasl, proof, server}, false},
		"a proof, with its code":   {[]pgproto3.BackendMessage{sasl, proof, wrong}, false},
	} {
		t.Run(name, func(t *testing.T) {
			all := said(t, c.messages...)
			got, err := heard(t, all)
			require.Equal(t, c.refused, isRefused(err), "%v", err)
			if !c.refused {
				require.NoError(t, err)
				require.Equal(t, all, got, "what is read along is handed on")
			}
		})
	}
}

func TestWhatIsNoMessageIsHandedOnToPgx(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "H", "HTTP/1.1 400 Bad Request\r\n\r\n", "R\x00\x00\x00\x03", "R\xff\xff\xff\xff", "E\x00\x00\x00\x04", "R\x00\x00\x00\x05aE\x00\x00\x00\x04rest", "R\x00\x00\x00\x08\x00\x00\x00\x0bE\x00\x00\x00\x05X"} {
		got, err := io.ReadAll(&login{from: bytes.NewReader([]byte(text))})
		if len(text) != 1 {
			require.NoError(t, err, "%q", text)
			require.Equal(t, text, string(got))
			continue
		}
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

func TestAPoolersWordAtTheDoorIsRetriedUnlessItIsAboutThePassword(t *testing.T) {
	t.Parallel()
	pooler := &pgconn.PgError{Severity: "FATAL", Code: "08P01"}
	for code, want := range map[string]struct {
		err  error
		exit exitcodes.Code
	}{
		"08P01 to a password":    {&refusedError{pooler}, exitcodes.Config},
		"08P01":                  {pooler, exitcodes.Retry.Code()},
		"28P01":                  {&pgconn.PgError{Severity: "FATAL", Code: "28P01"}, exitcodes.Config},
		"pgconn.ErrConnClosed":   {pgconn.ErrConnClosed, exitcodes.Retry.Code()},
		"08P01 while connecting": {connecting(t, pooler), exitcodes.Retry.Code()},
	} {
		m := errorTable.Of(want.err)
		require.Equal(t, code, m.Code)
		class := m.Class(false)
		if class.Code == 0 {
			class.Code = class.Disposition.Code()
		}
		require.Equal(t, want.exit, class.Code, code)
	}
	byServer := &pgconn.PgError{Severity: "FATAL", Code: "08P01", Routine: "ProcessStartupPacket"}
	require.Equal(t, "08P01", errorTable.Of(connecting(t, byServer)).Code, "PostgreSQL's own word is what it was")
}
