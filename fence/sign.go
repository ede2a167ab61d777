package fence

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/fencepost/fencepost/exitcodes"
)

// A signed token is one text: that of the token, ".s", and 86 characters, which
// are the Ed25519 signature in the base64 of URLs without padding. What is signed is
//
//	fencepost token 1\nSCOPE\nTOKEN
//
// in which TOKEN is the text form, and SCOPE, which has no line break, names the
// catalog. So a signature for one catalog, or one of the same key for anything else,
// is none for another. Both forms are frozen.
const (
	signedPrefix  = "fencepost token 1\n"
	signatureMark = ".s"

	maxSignature = 86 // characters
	maxKeys      = 4  // each forged token costs a verification by each key
)

// ErrUnsigned means that a token is above what a guard has seen, and bears no
// signature by a key that the guard trusts.
var ErrUnsigned = errors.New("the token has no signature that is trusted here")

func signedMessage(scope string, t Token) []byte {
	return []byte(signedPrefix + scope + "\n" + t.String())
}

func checkScope(scope string) error {
	if !isName(scope) {
		return exitcodes.WithCode(fmt.Errorf("fence: the scope of signatures is %.64q, want 1 to %d printable bytes that name one catalog",
			scope, MaxResourceName), exitcodes.Config)
	}
	return nil
}

// A Signer signs the token that a process holds, for guards that can't read the
// catalog. Its methods may be called concurrently.
//
// A signature proves that the token comes from a process of the service, and not
// that the catalog issued it: a process that has the key could sign any token. Sign
// only what catalog.Catalog.Token returns.
type Signer struct {
	scope string
	key   ed25519.PrivateKey
	last  atomic.Pointer[signedText]
}

type signedText struct {
	token Token
	text  string
}

// NewSigner returns a Signer. Scope names the catalog and where it is, such as
// "orders at eu-1": it is 1 to MaxResourceName printable bytes, the same for every
// process of the service and for its guards, and no other catalog has it.
func NewSigner(scope string, key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize || isEmpty(key) {
		return nil, exitcodes.WithCode(fmt.Errorf("fence: a private key of %d bytes, want %d of Ed25519 that are not all zero", len(key), ed25519.PrivateKeySize), exitcodes.Config)
	}
	if err := checkScope(scope); err != nil {
		return nil, err
	}
	return &Signer{scope: scope, key: slices.Clone(key)}, nil
}

// String names the catalog, and never shows the key.
func (s *Signer) String() string { return "signer of " + s.scope }

// GoString is String.
func (s *Signer) GoString() string { return s.String() }

// Text returns the text of t with its signature, or the text form alone if s is
// nil. The newest text is kept, so that a token is signed once.
func (s *Signer) Text(t Token) (string, error) {
	text, err := t.MarshalText()
	if err != nil || s == nil {
		return string(text), err
	}
	if last := s.last.Load(); last != nil && last.token == t {
		return last.text, nil
	}
	signature := ed25519.Sign(s.key, signedMessage(s.scope, t))
	signed := string(text) + signatureMark + base64.RawURLEncoding.EncodeToString(signature)
	s.last.Store(&signedText{t, signed})
	return signed, nil
}

// A Verifier knows the signatures of one catalog's holders. Its methods may be
// called concurrently.
type Verifier struct {
	scope string
	keys  []ed25519.PublicKey
}

// NewVerifier returns a Verifier of tokens that a [Signer] of the same scope has
// signed by one of up to 4 keys. To replace a key, give guards the old one and the
// new one, then the service the new one, then guards the new one alone.
func NewVerifier(scope string, keys ...ed25519.PublicKey) (*Verifier, error) {
	if err := checkScope(scope); err != nil {
		return nil, err
	}
	bad := slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return len(k) != ed25519.PublicKeySize || isEmpty(k) })
	if bad || len(keys) == 0 || len(keys) > maxKeys {
		return nil, exitcodes.WithCode(fmt.Errorf("fence: %d public keys, want 1 to %d, each of %d bytes of Ed25519 that are not all zero", len(keys), maxKeys, ed25519.PublicKeySize),
			exitcodes.Config)
	}
	v := &Verifier{scope: scope}
	for _, k := range keys {
		v.keys = append(v.keys, slices.Clone(k))
	}
	return v, nil
}

// isEmpty reports whether a key was never filled in. As a public key, zeros are a point
// of order four, for which everybody can make signatures.
func isEmpty(key []byte) bool { return !slices.ContainsFunc(key, func(b byte) bool { return b != 0 }) }

// trusts reports whether one of the keys has signed the token.
func (v *Verifier) trusts(g given) bool {
	if g.signature == nil {
		return false
	}
	message := signedMessage(v.scope, g.token)
	return slices.ContainsFunc(v.keys, func(k ed25519.PublicKey) bool { return ed25519.Verify(k, message, g.signature) })
}
