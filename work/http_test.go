package work_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/work"
)

func TestTheHandlerShowsTheStatusAndActivatesAndDoesNothingElse(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("op"))
		p.enqueue("op", "", "")
		mux := http.NewServeMux()
		mux.Handle("/work/", http.StripPrefix("/work", work.Handler(p.q)))
		call := func(method, path string, headers ...string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(l.Context(), method, "http://admin"+path, nil)
			for i := 0; i < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
			mux.ServeHTTP(w, r)
			return w
		}

		text := call("GET", "/work/")
		require.Equal(l, 200, text.Code)
		require.Equal(l, "text/plain; charset=utf-8", text.Header().Get("Content-Type"))
		require.Contains(l, text.Body.String(), "live 1 = ")
		require.Contains(l, text.Body.String(), "last pass: number ")
		for _, w := range []*httptest.ResponseRecorder{call("GET", "/work/?format=json"), call("GET", "/work/", "Accept", "application/json, */*")} {
			var st work.Status
			require.NoError(l, json.Unmarshal(w.Body.Bytes(), &st))
			require.Equal(l, 1, st.States[work.Running])
			require.NoError(l, st.Sums(), "what was sent still adds up")
		}
		before := p.status().Pass.Number
		var report work.Report
		require.NoError(l, json.Unmarshal(call("POST", "/work/activate?format=json").Body.Bytes(), &report))
		require.Greater(l, report.Number, before)
		require.Contains(l, call("POST", "/work/activate").Body.String(), "1 run")

		require.Equal(l, 403, call("POST", "/work/activate", "Sec-Fetch-Site", "cross-site").Code)
		require.Equal(l, 405, call("GET", "/work/activate").Code)
		require.Equal(l, 405, call("POST", "/work/").Code)
		require.Equal(l, 405, call("DELETE", "/work/").Code)
		for _, path := range []string{"/work/jobs", "/work/1", "/work/retry", "/work/activate/x"} {
			require.Equal(l, 404, call("GET", path).Code, path)
		}
		unborn, err := work.New(p.c, work.Config{})
		require.NoError(l, err)
		w := httptest.NewRecorder()
		work.Handler(unborn).ServeHTTP(w, httptest.NewRequestWithContext(l.Context(), "GET", "http://admin/", nil))
		require.Equal(l, 503, w.Code)
		require.ErrorIs(l, p.quit(), errStopped)
		require.Equal(l, 503, call("GET", "/work/").Code)
		require.Equal(l, 503, call("POST", "/work/activate").Code)
	})
}
