package peer

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNoErrorNamesANonceOrAProof(t *testing.T) {
	t.Parallel()
	var secrets []string
	var mu sync.Mutex
	noted := func(h http.HandlerFunc) string {
		return listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			secrets = append(secrets, r.URL.Query().Get("nonce"), r.URL.Query().Get("proof"))
			mu.Unlock()
			h(w, r)
		}))
	}
	client, err := net.Dial("tcp", listen(t, http.NotFoundHandler()))
	require.NoError(t, err)
	defer client.Close()
	for name, address := range map[string]string{
		"unserved":    client.LocalAddr().String(), // a port that is in use, and that nobody listens at
		"unreachable": "127.0.0.1:port",
		"unreadable":  "a b\x7f:1",
		"a redirect": noted(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String()+"x", http.StatusFound)
		}),
		"an echo": noted(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.URL.String()+"\x1b[31m", http.StatusNotFound)
		}),
		"an own echo": noted(func(w http.ResponseWriter, r *http.Request) {
			refuse(w, http.StatusConflict, errors.New(r.URL.String()+"\x1b[31m"))
		}),
		"no line":   noted(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.String()+"\n") }),
		"long line": noted(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", maxLine+1)) }),
		"broken":    noted(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	} {
		_, one := AskHandover(t.Context(), ask(address))
		_, two := Dial(t.Context(), time.Minute, mine(), address)
		for _, err := range []error{one, two} {
			require.Error(t, err, name)
			require.NotContains(t, err.Error(), "\x1b", name)
			if strings.HasPrefix(name, "un") {
				require.NotContains(t, err.Error(), "nonce", name)
			}
			require.Less(t, len(err.Error()), maxWhy+200, name)
			mu.Lock()
			for _, secret := range secrets {
				require.NotContains(t, err.Error(), secret, name)
			}
			mu.Unlock()
		}
		require.Equal(t, name == "unserved", errors.Is(one, syscall.ECONNREFUSED) && errors.Is(two, syscall.ECONNREFUSED))
	}
	require.NotEmpty(t, secrets)
}
