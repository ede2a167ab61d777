package neterr

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"reflect"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Certificates returns the errors of judging a certificate. They come from
// files and configuration, so that only those help, and time where one is not
// valid yet.
func Certificates(r Remedies) driver.Family {
	wrong := config(r.TLS)
	reason := func(reason x509.InvalidReason, code, why string) driver.Entry {
		return As(code, "certificate is not valid", func(e x509.CertificateInvalidError) bool { return e.Reason == reason },
			wrong, driver.Unknown, why)
	}
	return driver.Family{
		Name: "certificate", Source: "the error types of Go's crypto/x509 and crypto/tls",
		Entries: []driver.Entry{
			As("x509.Expired: not valid yet", "certificate is not valid yet", notYet, retry("set the clocks of both hosts; "+r.TLS), driver.Unknown,
				"its time begins later by this host's clock, which time itself mends"),
			reason(x509.NotAuthorizedToSign, "x509.NotAuthorizedToSign", "a certificate was signed by one that is no CA"),
			reason(x509.Expired, "x509.Expired", "it has expired by this host's clock: a restart reads a renewed one"),
			reason(x509.CANotAuthorizedForThisName, "x509.CANotAuthorizedForThisName", "the CA may not sign for this name"),
			reason(x509.TooManyIntermediates, "x509.TooManyIntermediates", "the chain is longer than one of its CAs allows"),
			reason(x509.IncompatibleUsage, "x509.IncompatibleUsage", "its extended key usage is for something else: a server's was shown by a client, or the reverse"),
			reason(x509.NameMismatch, "x509.NameMismatch", "the chain's names don't fit together: an issuer is not the next one's subject"),
			reason(x509.NameConstraintsWithoutSANs, "x509.NameConstraintsWithoutSANs", "no longer given by Go; it meant names only in the common name"),
			reason(x509.UnconstrainedName, "x509.UnconstrainedName", "it has a name of a kind that its CA's constraints don't allow"),
			reason(x509.TooManyConstraints, "x509.TooManyConstraints", "the constraints take too long to check"),
			reason(x509.CANotAuthorizedForExtKeyUsage, "x509.CANotAuthorizedForExtKeyUsage", "the CA may not sign for this usage"),
			reason(x509.NoValidChains, "x509.NoValidChains", "no chain of certificates is acceptable"),
			As[x509.CertificateInvalidError]("x509.CertificateInvalidError", "certificate is not valid", nil, wrong, driver.Unknown, "not valid for a reason that is newer than this table"),
			As[x509.HostnameError]("x509.HostnameError", "certificate is for another name", nil, wrong, driver.Unknown, "the host was reached by a name that its certificate has not"),
			As[x509.UnknownAuthorityError]("x509.UnknownAuthorityError", "certificate signed by unknown authority", nil, wrong, driver.Unknown, "nobody who is trusted here has signed it"),
			As[x509.SystemRootsError]("x509.SystemRootsError", "failed to load system roots", nil, wrong, driver.Unknown, "this host has no readable list of trusted CAs"),
			As[x509.InsecureAlgorithmError]("x509.InsecureAlgorithmError", "cannot verify signature: insecure algorithm", nil, wrong, driver.Unknown, "it is signed by an algorithm that is broken, such as SHA-1"),
			As[x509.ConstraintViolationError]("x509.ConstraintViolationError", "invalid signature: parent certificate cannot sign", nil, wrong, driver.Unknown, "its issuer may not sign this kind of certificate"),
			As[x509.UnhandledCriticalExtension]("x509.UnhandledCriticalExtension", "unhandled critical extension", nil, wrong, driver.Unknown, "it demands a check that Go does not know"),
			Is(x509.ErrUnsupportedAlgorithm, "x509.ErrUnsupportedAlgorithm", wrong, driver.Unknown, "it is signed by an algorithm that Go has not"),
			Is(x509.IncorrectPasswordError, "x509.IncorrectPasswordError", wrong, driver.Unknown, "the key's file can't be opened by the password that was given"),
			As[*tls.CertificateVerificationError]("tls.CertificateVerificationError", "failed to verify certificate", nil, wrong, driver.Unknown, "this side refuses the other's certificate"),
			As[*tls.ECHRejectionError]("tls.ECHRejectionError", "server rejected ECH", nil, wrong, driver.Unknown, "the server does not take the encrypted hello that was configured"),
			As[tls.RecordHeaderError]("tls.RecordHeaderError", "first record does not look like a TLS handshake", nil, wrong, driver.Unknown, "the other side speaks no TLS on this port"),
		},
	}
}

// notYet tells apart what Go calls expired alike.
func notYet(e x509.CertificateInvalidError) bool {
	return e.Reason == x509.Expired && e.Cert != nil && e.Cert.NotBefore.After(time.Now())
}

// Alerts returns the alerts by which one side of a TLS connection ends it.
func Alerts(r Remedies) driver.Family {
	f := driver.Family{Name: "TLS", Source: "the alerts of Go's crypto/tls, RFC 8446", Key: alertOf}
	add := func(number int, name string, class driver.Class, why string) {
		f.Entries = append(f.Entries, driver.Line(alertCode(uint64(number)), name, class, driver.Unknown, why))
	}
	wrong, passes := config(r.TLS), retry("")
	add(0, "close notify", passes, "the other side ended the connection in good order, such as for a restart")
	add(10, "unexpected message", wrong, "the two sides don't speak the same way: a proxy in between, or a defect of one")
	add(20, "bad record MAC", passes, "bytes were changed on their way; a new connection has new keys")
	add(21, "decryption failed", passes, "bytes were changed on their way, as an old server says it")
	add(22, "record overflow", wrong, "one side sends longer records than TLS allows")
	add(30, "decompression failure", wrong, "of a compression that no version in use has")
	add(40, "handshake failure", wrong, "no version or cipher suits both sides, or a certificate is missing")
	add(42, "bad certificate", wrong, "the other side can't read or verify our certificate")
	add(43, "unsupported certificate", wrong, "our certificate's kind is not taken")
	add(44, "revoked certificate", wrong, "our certificate was revoked")
	add(45, "expired certificate", wrong, "our certificate has expired: a restart reads a renewed one")
	add(46, "unknown certificate", wrong, "our certificate is refused for a reason of the other side's")
	add(47, "illegal parameter", wrong, "the two sides contradict each other in the handshake")
	add(48, "unknown certificate authority", wrong, "the other side does not trust who signed our certificate")
	add(49, "access denied", wrong, "our certificate is valid, and has no access")
	add(50, "error decoding message", wrong, "a message could not be read: a defect of one side, or a proxy in between")
	add(51, "error decrypting message", wrong, "a signature of the handshake is wrong: key and certificate don't belong together")
	add(60, "export restriction", wrong, "of a past law on ciphers; no version in use sends it")
	add(70, "protocol version not supported", wrong, "no version of TLS suits both sides")
	add(71, "insufficient security level", wrong, "the other side demands stronger ciphers")
	add(80, "internal error", passes, "the other side failed for a reason of its own, such as memory")
	add(86, "inappropriate fallback", wrong, "somebody in between lowered the version")
	add(90, "user canceled", passes, "the other side broke the handshake off")
	add(100, "no renegotiation", wrong, "one side asks for new keys in a way that the other has not")
	add(109, "missing extension", wrong, "the handshake lacks what the other side demands")
	add(110, "unsupported extension", wrong, "the handshake has an answer that nobody asked for")
	add(111, "certificate unobtainable", wrong, "our certificate was named by an address that does not answer")
	add(112, "unrecognized name", wrong, "the server knows no host of the name that we ask for")
	add(113, "bad certificate status response", wrong, "the stapled proof of validity is refused")
	add(114, "bad certificate hash value", wrong, "our certificate is not the one that its hash names")
	add(115, "unknown PSK identity", wrong, "the server does not know the shared key")
	add(116, "certificate required", wrong, "the server wants a certificate of ours, and got none")
	add(120, "no application protocol", wrong, "no protocol above TLS suits both sides: another kind of server, or a proxy")
	add(121, "encrypted client hello required", wrong, "the server takes an encrypted hello only")
	return f
}

func alertCode(number uint64) string { return fmt.Sprintf("alert %d", number) }

// alertOf returns the alert in err. Package crypto/tls has an exported type for
// those of QUIC only; those of a connection are a net.OpError around a number
// of a type of its own, which can be read nevertheless. Were it no number any
// more, a test would say so.
func alertOf(err error) (string, bool) {
	var quic tls.AlertError
	if errors.As(err, &quic) {
		return alertCode(uint64(quic)), true
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" && op.Op != "local error" {
		return "", false
	}
	v := reflect.ValueOf(op.Err)
	if !v.IsValid() || v.Kind() != reflect.Uint8 || v.Type().PkgPath() != "crypto/tls" {
		return "", false
	}
	return alertCode(v.Uint()), true
}
