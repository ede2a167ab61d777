package fence_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/orders"
)

const scope = "orders at eu-1"

// key returns the n-th key pair of the tests.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func publicKey(n byte) ed25519.PublicKey { return key(n).Public().(ed25519.PublicKey) }

func signer(t testing.TB, scope string, n byte) *fence.Signer {
	t.Helper()
	s, err := fence.NewSigner(scope, key(n))
	require.NoError(t, err)
	return s
}

func signed(t testing.TB, s *fence.Signer, tok fence.Token) string {
	t.Helper()
	text, err := s.Text(tok)
	require.NoError(t, err)
	return text
}

func verifier(t testing.TB, keys ...ed25519.PublicKey) *fence.Verifier {
	t.Helper()
	v, err := fence.NewVerifier(scope, keys...)
	require.NoError(t, err)
	return v
}

// emptyFile writes a file without registers, as whoever starts a server first does.
func emptyFile(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "registers")
	require.NoError(t, os.WriteFile(path, []byte(`{"format":"fencepost gate 1","registers":{}}`), 0o600))
	return path
}

func openSigned(t testing.TB, path string, keys ...ed25519.PublicKey) *fence.Gate {
	t.Helper()
	g, err := fence.OpenGate(path, fence.GateConfig{Name: "http", Signed: verifier(t, keys...)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

func admitText(t testing.TB, g *fence.Gate, text string) {
	t.Helper()
	a, err := g.AdmitText(t.Context(), "orders", []string{text})
	require.NoError(t, err, text)
	a.Release()
}

func TestTheFormOfASignedTokenIsFrozen(t *testing.T) {
	t.Parallel()
	s := signer(t, scope, 1)
	text := signed(t, s, token(7, 41))
	require.Equal(t, "g7.e41.s"+base64.RawURLEncoding.EncodeToString(ed25519.Sign(key(1), []byte("fencepost token 1\norders at eu-1\ng7.e41"))), text)
	require.Equal(t, "g7.e41.sJRRlXiAheH0Kch_34KT-AimQL3GfXm", text[:38])
	require.Equal(t, text, signed(t, s, token(7, 41)), "it is signed once")
	require.NotEqual(t, text, signed(t, s, token(8, 42)))
	require.Len(t, signed(t, s, token(generation.Max, epoch.Max)), 129, "the longest")
	require.Equal(t, "g7.e41", signed(t, nil, token(7, 41)))
	_, err := s.Text(token(generation.Max+1, 1))
	require.ErrorIs(t, err, generation.ErrOverflow)
	parsed, err := fence.TokenOf("http", []string{text})
	require.NoError(t, err)
	require.Equal(t, token(7, 41), parsed)
}

// forgeries returns texts of g9.e99, none of which a holder of key 1 has made for
// this scope.
func forgeries(t testing.TB) map[string]string {
	good := signed(t, signer(t, scope, 1), token(9, 99))
	all := map[string]string{
		"no signature":      "g9.e99",
		"another key":       signed(t, signer(t, scope, 2), token(9, 99)),
		"another catalog":   signed(t, signer(t, "orders at eu-2", 1), token(9, 99)),
		"another token's":   strings.Replace(signed(t, signer(t, scope, 1), token(8, 42)), "g8.e42", "g9.e99", 1),
		"another use":       "g9.e99.s" + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key(1), []byte("g9.e99"))),
		"zeros":             "g9.e99.s" + strings.Repeat("A", 86),
		"the catalog's end": signed(t, signer(t, "orders at eu-1 g9.e99", 1), token(9, 99)),
	}
	for i := range ed25519.SignatureSize * 8 {
		raw, err := base64.RawURLEncoding.DecodeString(good[len("g9.e99.s"):])
		require.NoError(t, err)
		raw[i/8] ^= 1 << (i % 8)
		if i%37 == 0 {
			all["bit "+string(rune('0'+i/37))] = "g9.e99.s" + base64.RawURLEncoding.EncodeToString(raw)
		}
	}
	return all
}

func TestARegisterRisesForNoTokenThatIsNotSigned(t *testing.T) {
	t.Parallel()
	path := emptyFile(t)
	g := openSigned(t, path, publicKey(1))
	require.Error(t, mustRefuse(t, g, "g9.e99"))
	require.Empty(t, g.Registers(), "an empty register does not rise for it either")
	holder := signed(t, signer(t, scope, 1), token(8, 42))
	admitText(t, g, holder)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	for what, text := range forgeries(t) {
		err := mustRefuse(t, g, text)
		require.ErrorIs(t, err, fence.ErrUnsigned, what)
		require.NotErrorIs(t, err, fence.ErrFenced, what)
		require.Equal(t, exitcodes.None, exitcodes.Of(err), what)
		admitText(t, g, holder)
	}
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	_, err = g.Admit(t.Context(), "orders", token(9, 99))
	require.ErrorIs(t, err, fence.ErrUnsigned, "a bare token has no signature")
	admitText(t, g, "g8.e42") // it is no secret, and raises nothing
	admitText(t, g, signed(t, signer(t, scope, 1), token(9, 99)))
	err = mustRefuse(t, g, holder)
	require.Equal(t, &fence.Error{Held: token(8, 42), Current: token(9, 99), Guard: "http orders"}, err)
}

func mustRefuse(t testing.TB, g *fence.Gate, texts ...string) error {
	t.Helper()
	a, err := g.AdmitText(t.Context(), "orders", texts)
	require.Error(t, err)
	require.Nil(t, a)
	return err
}

func TestWhatIsNoSignatureIsMalformed(t *testing.T) {
	t.Parallel()
	g := openSigned(t, emptyFile(t), publicKey(1))
	good := signed(t, signer(t, scope, 1), token(7, 41))
	for _, text := range []string{
		"g7.e41.s", "g7.e41.", "g7.e41s", good + "A", good[:len(good)-1], good + "=", good[:len(good)-2] + "==", good + "\n", good[:20] + "\n" + good[20:],
		strings.Replace(good, ".s", ".S", 1), strings.Replace(good, ".s", ".s.s", 1), good + good, good[:len(good)-1] + "/", good[:len(good)-1] + "x", " " + good,
		"g07.e41" + good[6:], "g7.e41,g7.e41" + good[6:], good + strings.Repeat("A", 1<<20), strings.Repeat("9", 42) + good[6:], good[6:], strings.Repeat("g", 1<<20),
	} {
		err := mustRefuse(t, g, text)
		require.ErrorIs(t, err, fence.ErrMalformed, "%.200q", text)
		require.Less(t, len(err.Error()), 400)
	}
	require.ErrorIs(t, mustRefuse(t, g, good, good), fence.ErrMalformed)
	require.ErrorIs(t, mustRefuse(t, g), fence.ErrMissing)
	require.ErrorIs(t, mustRefuse(t, g, "g0.e0"+good[6:]), fence.ErrNeverIssued)
	require.Empty(t, g.Registers())
	admitText(t, g, good)
	_, err := g.AdmitText(t.Context(), "a\nb", []string{good})
	require.ErrorIs(t, err, fence.ErrResource)
}

func TestAGateThatReadsTheCatalogLooksAtNoSignature(t *testing.T) {
	t.Parallel()
	g := newGate(t, fence.GateConfig{Newest: headAt(token(8, 42)).newest})
	require.ErrorIs(t, mustRefuse(t, g, signed(t, signer(t, scope, 1), token(9, 99))), fence.ErrNeverIssued)
	admitText(t, g, signed(t, signer(t, "another", 3), token(8, 42)))
}

func TestAKeyIsReplacedWhileBothAreTrusted(t *testing.T) {
	t.Parallel()
	path := emptyFile(t)
	blue, green := signed(t, signer(t, scope, 1), token(7, 41)), signed(t, signer(t, scope, 2), token(8, 42))
	with := func(do func(g *fence.Gate), keys ...ed25519.PublicKey) {
		g, err := fence.OpenGate(path, fence.GateConfig{Signed: verifier(t, keys...)})
		require.NoError(t, err)
		do(g)
		require.NoError(t, g.Close())
	}
	with(func(g *fence.Gate) { admitText(t, g, blue) }, publicKey(1))
	with(func(g *fence.Gate) {
		admitText(t, g, blue)
		admitText(t, g, green)
	}, publicKey(1), publicKey(2))
	with(func(g *fence.Gate) {
		admitText(t, g, green)
		require.ErrorIs(t, mustRefuse(t, g, signed(t, signer(t, scope, 1), token(9, 43))), fence.ErrUnsigned, "the old key")
	}, publicKey(2))
}

// A container's folder is empty at each start, and no older holder may be the first.
func TestAFileOfSignedRegistersThatIsNotThereIsNoEmptyOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registers")
	_, err := fence.OpenGate(path, fence.GateConfig{Signed: verifier(t, publicKey(1))})
	require.ErrorIs(t, err, fence.ErrGateFile)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	_, remedy, found := strings.Cut(err.Error(), "or older holders are gone, write ")
	require.True(t, found, err)
	remedy, _, found = strings.Cut(remedy, " into it")
	require.True(t, found, err)
	require.NoError(t, os.WriteFile(path, []byte(remedy), 0o600))
	admitText(t, openSigned(t, path, publicKey(1)), signed(t, signer(t, scope, 1), token(7, 41)))
}

func TestAGateIsOfOneKindAndKeysAndScopesAreChecked(t *testing.T) {
	t.Parallel()
	v, path := verifier(t, publicKey(1)), filepath.Join(t.TempDir(), "registers")
	_, inMemory := fence.NewGate(fence.GateConfig{Signed: v})
	_, both := fence.OpenGate(path, fence.GateConfig{Signed: v, Newest: headAt(token(1, 1)).newest})
	_, neither := fence.OpenGate(path, fence.GateConfig{})
	_, noKey := fence.NewVerifier(scope)
	_, five := fence.NewVerifier(scope, publicKey(1), publicKey(2), publicKey(3), publicKey(4), publicKey(5))
	_, short := fence.NewVerifier(scope, publicKey(1), publicKey(2)[1:])
	_, noScope := fence.NewVerifier("", publicKey(1))
	_, twoLines := fence.NewSigner("a\nb", key(1))
	_, noPrivate := fence.NewSigner(scope, nil)
	for why, err := range map[string]error{
		"Signed needs a file": inMemory, "want one of Newest and Signed": both, "want one of Newest and Signed:": neither, "0 public keys": noKey,
		"5 public keys": five, "2 public keys": short, `scope of signatures is ""`: noScope, `"a\nb"`: twoLines, "0 bytes": noPrivate,
	} {
		require.ErrorContains(t, err, why)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
	require.NoFileExists(t, path)
}

// Every merge of the old holder's {write, write} with the new one's {write}, in which
// the server restarts at each place: a register that is kept in memory lets the old
// one in behind the new one, a file does not.
// As a public key, zeros are a point of order four: one signature in four of these
// holds, whatever the message is.
func TestAKeyThatWasNeverFilledInIsNoKey(t *testing.T) {
	t.Parallel()
	empty := make(ed25519.PublicKey, ed25519.PublicKeySize)
	forged := 0
	for n := range 100 {
		if ed25519.Verify(empty, []byte{byte(n)}, make([]byte, ed25519.SignatureSize)) {
			forged++
		}
	}
	require.NotZero(t, forged)
	_, err := fence.NewVerifier(scope, publicKey(1), empty)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	_, err = fence.NewSigner(scope, make(ed25519.PrivateKey, ed25519.PrivateKeySize))
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}

func TestASignerNeverShowsItsKey(t *testing.T) {
	t.Parallel()
	s := signer(t, scope, 1)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "signer", s)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "signer", s)
	for _, shown := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), log.String()} {
		for _, secret := range []string{"1 1 1 1", "01010101", "0x1, 0x1", "1,1,1"} {
			require.NotContains(t, shown, secret)
		}
	}
}

func TestInNoOrderOfStepsDoesASignedTokenPassBehindANewerOneThoughTheServerRestarts(t *testing.T) {
	t.Parallel()
	v := verifier(t, publicKey(1))
	texts := map[string]string{"old": signed(t, signer(t, scope, 1), token(7, 41)), "new": signed(t, signer(t, scope, 1), token(8, 42))}
	stale := func(open func(path string) (*fence.Gate, error)) (found, played int) {
		for _, order := range orders.Merges(orders.Steps("old", "write", "write"), orders.Steps("new", "write")) {
			for at := range len(order) + 1 {
				path := emptyFile(t)
				g, err := open(path)
				require.NoError(t, err)
				newest, staleOne := false, false
				for i, step := range order {
					if i == at {
						require.NoError(t, g.Close())
						g, err = open(path)
						require.NoError(t, err)
					}
					a, err := g.AdmitText(t.Context(), "orders", []string{texts[step.Who]})
					if err == nil {
						a.Release()
					}
					if step.Who == "new" {
						require.NoError(t, err)
						newest = true
					} else {
						staleOne = staleOne || newest && err == nil
					}
				}
				require.NoError(t, g.Close())
				played++
				if staleOne {
					found++
				}
			}
		}
		return found, played
	}
	found, played := stale(func(path string) (*fence.Gate, error) { return fence.OpenGate(path, fence.GateConfig{Signed: v}) })
	require.Equal(t, []int{0, 12}, []int{found, played})
	found, _ = stale(func(string) (*fence.Gate, error) { return fence.NewSignedGateInMemory(v) })
	require.Positive(t, found)
}

func FuzzNoTextRaisesARegisterButASignedOne(f *testing.F) {
	good := signed(f, signer(f, scope, 1), token(9, 99))
	f.Add(good)
	f.Add("g7.e41")
	f.Add("")
	for _, text := range forgeries(f) {
		f.Add(text)
	}
	v, old := verifier(f, publicKey(1)), signed(f, signer(f, scope, 1), token(7, 41))
	f.Fuzz(func(t *testing.T, text string) {
		g, err := fence.NewSignedGateInMemory(v)
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Close()) }()
		admitText(t, g, old)
		a, err := g.AdmitText(context.Background(), "orders", []string{text})
		if g.Registers()[0].Token != token(7, 41) {
			require.Equal(t, good, text)
		}
		if err == nil {
			require.Equal(t, g.Registers()[0].Token, a.Token(), "what equals the register is admitted, whatever its signature")
			a.Release()
		}
	})
}
