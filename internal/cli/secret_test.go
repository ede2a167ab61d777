package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

const secret = "hunter2"

func requireNoSecret(t *testing.T, got ran) {
	t.Helper()
	require.NotContains(t, got.stdout, secret)
	require.NotContains(t, got.stderr, secret)
}

func TestAPasswordOnTheCommandLineIsRefusedAndNotShown(t *testing.T) {
	t.Parallel()
	urls := []string{
		"postgres://u:" + secret + "@127.0.0.1:1/d?catalog=c",
		"postgres://u@127.0.0.1:1/d?catalog=c&password=" + secret,
		"postgres://u@127.0.0.1:1/d?%70assword=" + secret,
		"postgres://u:" + secret + "/x?y@127.0.0.1:1/d",
		"etcd://u:" + secret + "@127.0.0.1:1/p",
		"mysql://u:" + secret + "@h/d",
		"host=127.0.0.1 password=" + secret,
	}
	for _, url := range urls {
		for _, args := range [][]string{
			{"status", "--store", url},
			{"status", "--store=" + url},
			{"status", url},
			{url},
			{"history", "--stroe=" + url},
			{"status", "--timeout", url},
			{"promote", "--generation", url},
			{"fence", "--reason", url},
			{"restored", "--above", url},
			{"dump", "--collection", url},
			{"work", "status", "--store", url},
			{"work", "check", "--webhook", url},
			{"work", "check", "--notify", url},
			{"work", "show", url},
			{"work", "enqueue", "--kind", "k", "--payload=" + url},
			{"preflight", "--generation", url},
			{"run", "--store", url, "--", "true"},
			{"lead", "--guard-url", url, "--", "true"},
			{"lead", "--register=" + url, "--", "true"},
			{"lead", "--ready-url", url, "--", "true"},
		} {
			for _, more := range [][]string{nil, {"--json"}} {
				got := run(t, nil, append(more, args...)...)
				require.Equal(t, exitcodes.Usage, got.code, "%v: %s", args, got.stderr)
				require.Contains(t, got.stderr, storeurl.FileEnvVar)
				requireNoSecret(t, got)
			}
		}
	}
}

func TestAPasswordFromTheEnvironmentIsNeverShown(t *testing.T) {
	t.Setenv("PGPASSWORD", secret)
	t.Setenv("PGPASSFILE", filepath.Join(t.TempDir(), "none"))
	urls := []string{
		"postgres://u:" + secret + "@127.0.0.1:1/d?catalog=c",
		"postgres://u:" + secret + "@127.0.0.1:1/d?catalog=NOT+GOOD",
		"postgres://u:" + secret + "@127.0.0.1:notaport/d?catalog=c",
		"postgres://u:" + secret + "%zz@127.0.0.1:1/d?catalog=c",
		"postgres://u:" + secret + "/x@127.0.0.1:1/d",
		"postgres://u@127.0.0.1:1/d?sslpassword=" + secret,
		"postgres://127.0.0.1:1/d?password=" + secret + "&sslmode=nonsense",
		"etcd://u:" + secret + "@127.0.0.1:1/p",
		"etcd://u:" + secret + "@nohost",
		"etcd://u:" + secret + "%zz@127.0.0.1:1/p",
		"etcds://u:" + secret + "@127.0.0.1:1/p?x=y",
		"mysql://u:" + secret + "@127.0.0.1/d",
		"u:" + secret + "@127.0.0.1",
		secret,
		"etcd://127.0.0.1:1/p",
	}
	for _, url := range urls {
		env := map[string]string{storeurl.EnvVar: url, "FENCEPOST_ETCD_USERNAME": "u", "FENCEPOST_ETCD_PASSWORD": secret}
		for _, command := range []string{"status", "history", "generation next", "promote --generation 2",
			"fence --reason r", "restored --above g1.e1", "dump", "dump --log", "preflight --generation 2",
			"work status", "work list", "work check", "work retry 1", "work enqueue --kind k", "work install"} {
			for _, more := range []string{" --timeout 100ms", " --timeout 100ms --json"} {
				args := strings.Fields(command + more)
				got := run(t, env, args...)
				require.NotEqual(t, exitcodes.Success, got.code, url)
				require.NotEmpty(t, got.stderr)
				requireNoSecret(t, got)
			}
		}
	}
}

func TestTheURLCanComeFromAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(path, []byte("  sqlite:"+claimed(t)+"\n"), 0o600))
	got := run(t, map[string]string{storeurl.FileEnvVar: path}, "status")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "g1.e1")

	require.NoError(t, os.WriteFile(path, []byte("postgres://u:"+secret+"@127.0.0.1:1/d?catalog=c"), 0o600))
	got = run(t, map[string]string{storeurl.FileEnvVar: path}, "status", "--timeout", "1s")
	require.Equal(t, exitcodes.TempFail, got.code, got.stderr)
	requireNoSecret(t, got)

	require.NoError(t, os.Remove(path))
	got = run(t, map[string]string{storeurl.FileEnvVar: path}, "status")
	require.Equal(t, exitcodes.Config, got.code)
	require.Contains(t, got.stderr, path)
}

func TestAPasswordWithARawSlashOrHashIsNeverShown(t *testing.T) {
	t.Parallel()
	for url, parts := range map[string][]string{
		"etcd://app:pa/" + secret + "@h:2379/app":             {secret, "pa/", ":pa"},
		"etcd://app:2379/" + secret + "@127.0.0.1:2379/app":   {secret, "2379/"},
		"postgres://app:2024/" + secret + "@db:5432/app":      {secret, "2024"},
		"postgres://app:2024#" + secret + "@db:5432/app":      {secret, "2024"},
		"postgres://app:2024/x?" + secret + "@127.0.0.1:1/db": {secret, "2024"},
	} {
		for _, command := range []string{"status", "history", "generation next", "promote --generation 2"} {
			for _, more := range []string{"", " --json"} {
				args := strings.Fields(command + " --timeout 100ms" + more)
				got := run(t, map[string]string{storeurl.EnvVar: url}, args...)
				require.Equal(t, exitcodes.Config, got.code, "%s: %s", url, got.stderr)
				for _, part := range parts {
					require.NotContains(t, got.stdout+got.stderr, part, url)
				}
				got = run(t, nil, append(args, "--store", url)...)
				require.Equal(t, exitcodes.Usage, got.code, "%s: %s", url, got.stderr)
				for _, part := range parts {
					require.NotContains(t, got.stdout+got.stderr, part, url)
				}
			}
		}
	}
}
