package storeurl_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// none is an environment that says nothing.
func none(string) string { return "" }

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestEachSchemeOpensItsStore(t *testing.T) {
	dir, err := os.Getwd()
	require.NoError(t, err)
	for url, want := range map[string]string{
		"sqlite:rel/c.db":                          "sqlite:" + dir + "/rel/c.db",
		"sqlite:/abs/c.db":                         "sqlite:/abs/c.db",
		"sqlite:///abs/c.db":                       "sqlite:/abs/c.db",
		"sqlite:/a b/c@d:e#":                       "sqlite:/a b/c@d:e#",
		"sqlite:/abs/c.db?filesystem=trusted":      "sqlite:/abs/c.db",
		"postgres://u@127.0.0.1:1/d?catalog=app":   "postgres://127.0.0.1:1/d?catalog=app",
		"postgresql://u@127.0.0.1:1/d?catalog=app": "postgres://127.0.0.1:1/d?catalog=app",
		"etcd://h1:2379,h2:2379/some/prefix":       "etcd://h1:2379,h2:2379/some/prefix",
		"etcds://h1:2379/p":                        "etcds://h1:2379/p",
		"etcd://h1:1/p?lease=3s&hedge-after=off":   "etcd://h1:1/p",
	} {
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: none})
		require.NoError(t, err, url)
		require.Equal(t, want, store.String())
		require.NoError(t, store.Close())
	}
}

func TestAURLThatNamesNoStoreIsConfiguration(t *testing.T) {
	for url, says := range map[string]string{
		"":                                   "--store",
		"c.db":                               "sqlite:PATH",
		"C:\\c.db":                           "sqlite:PATH",
		"redis://h":                          `"redis"`,
		"sqlite:":                            "names no file",
		"sqlite:c.db?x=y":                    "one parameter",
		"sqlite:c.db?":                       "one parameter",
		"sqlite:?filesystem=trusted":         "names no file",
		"sqlite:c.db?filesystem=fuse":        "want sqlite:PATH or sqlite:PATH?filesystem=trusted",
		"sqlite:c.db?filesystem=trusted&x=y": "one parameter",
		"sqlite://h/c.db":                    "names a host",
		"postgres://h/d?catalog=NO":          "catalog",
		"etcd://h:1":                         "prefix",
		"etcd:h":                             "etcd://host",
		"etcd://h:1/p?hedge=1s":              "hedge-after",
	} {
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: none})
		require.ErrorContains(t, err, says, url)
		require.Nil(t, store, "a nil pointer in the clothes of a store")
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), url)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), url)
	}
	_, err := storeurl.Open(t.Context(), "", storeurl.Config{Getenv: none})
	require.ErrorIs(t, err, storeurl.ErrMissing)
	require.ErrorContains(t, err, storeurl.EnvVar)
}

func TestTheArgumentComesBeforeTheVariableAndThatBeforeTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(file, []byte("sqlite:/from/file\n"), 0o600))
	all := map[string]string{storeurl.FileEnvVar: file}
	opened := func(url string) string {
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: env(all)})
		require.NoError(t, err)
		require.NoError(t, store.Close())
		return store.String()
	}
	require.Equal(t, "sqlite:/from/file", opened(""))
	all[storeurl.EnvVar] = "sqlite:/from/variable"
	require.Equal(t, "sqlite:/from/variable", opened(""))
	require.Equal(t, "sqlite:/from/argument", opened("sqlite:/from/argument"))
}

func TestAFileWithoutAURLIsConfiguration(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for _, path := range []string{empty, filepath.Join(t.TempDir(), "absent"), t.TempDir()} {
		_, err := storeurl.Open(t.Context(), "", storeurl.Config{Getenv: env(map[string]string{storeurl.FileEnvVar: path})})
		require.ErrorContains(t, err, path)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
}

const secret = "hunter2"

func TestAnArgumentWithAPasswordIsRefusedAndNotShown(t *testing.T) {
	for _, url := range []string{
		"postgres://u:" + secret + "@h/d",
		"postgres://:" + secret + "@h/d",
		"postgres://u:" + secret + "/?#@h/d",
		"postgres://u@h/d?password=" + secret,
		"postgres://u@h/d?sslmode=disable&PASSWORD=" + secret,
		"postgres://u@h/d?pass%77ord=" + secret,
		"postgres://u@h/d?sslpassword=" + secret,
		"etcds://u:" + secret + "@h:2379/p",
		"any://u:" + secret + "@h",
		"host=h user=u password=" + secret,
		"u:" + secret + "@h",
	} {
		err := storeurl.CheckArgument(url)
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), secret)
		require.ErrorContains(t, err, storeurl.EnvVar)
		require.ErrorContains(t, err, storeurl.FileEnvVar)
		require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	}
}

func TestAnArgumentWithoutAPasswordIsTaken(t *testing.T) {
	for _, url := range []string{
		"",
		"sqlite:/var/a:b@c/password=x.db",
		"postgres://u@h:5432/d?catalog=c",
		"postgres://u@h1:5432,h2:5432/d?passfile=/run/secrets/pg&password=",
		"etcd://h1:2379,h2:2379/p",
		"etcd://u@h:2379/p",
		"nonsense",
	} {
		require.NoError(t, storeurl.CheckArgument(url), url)
	}
}

func TestNoErrorShowsAPassword(t *testing.T) {
	for _, url := range []string{
		"postgres://u:" + secret + "@h:port/d?catalog=c",
		"postgres://u:" + secret + "%zz@h/d",
		"postgres://u:" + secret + "/x@h/d?catalog=NO",
		"postgres://h/d?password=" + secret + "&sslmode=nonsense",
		"postgres://app:2024/" + secret + "@db:5432/app",
		"postgres://app:2024#" + secret + "@db:5432/app",
		"etcd://app:pa/" + secret + "@h:2379/app",
		"etcd://app:2379/" + secret + "@127.0.0.1:2379/app",
		"etcd://u:" + secret + "@h",
		"etcd://u:" + secret + "@h:1/p?x",
		"etcds://u:" + secret + "%zz@h:1/p",
		"sqlite://u:" + secret + "@h/p",
		"mysql://u:" + secret + "@h/p",
		secret,
		secret + ":x",
	} {
		_, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: none})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), secret)
		_, err = storeurl.OpenRegister(t.Context(), url, storeurl.Config{Getenv: none})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), secret)
	}
}

func TestAStoresNameShowsNoPassword(t *testing.T) {
	for _, url := range []string{"postgres://u:" + secret + "@127.0.0.1:1/d?catalog=c", "etcd://u:" + secret + "@127.0.0.1:1/p"} {
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: none})
		require.NoError(t, err)
		require.NotContains(t, store.String(), secret)
		require.NoError(t, store.Close())
	}
}

func TestAFileSystemIsTrustedByTheURLAlone(t *testing.T) {
	mounted := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "bindfs", t.TempDir(), mounted).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mounted, unix.MNT_DETACH)) })
	url := "sqlite:" + filepath.Join(mounted, "c.db")
	for url, want := range map[string]exitcodes.Code{url: exitcodes.Config, url + "?filesystem=trusted": exitcodes.Success} {
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: none})
		require.NoError(t, err)
		_, err = store.Head(t.Context())
		require.Equal(t, want, exitcodes.CodeOf(err), "%s: %v", url, err)
		require.NoError(t, store.Close())
	}
}
