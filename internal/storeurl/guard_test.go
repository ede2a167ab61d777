package storeurl_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
)

func TestTheGuardedDatabaseIsNamedAsAStoreIs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(file, []byte("host=file catalog=orders\n"), 0o600))
	all := map[string]string{storeurl.GuardFileEnvVar: file}
	url := func(argument string) string {
		g, err := storeurl.GuardOf(argument, storeurl.Config{Getenv: env(all)})
		require.NoError(t, err)
		require.False(t, g.IsZero())
		url, err := g.URL(fence.Token{Generation: 7, Epoch: 41})
		require.NoError(t, err)
		return url
	}
	require.Equal(t, "host='file' options='-c fencepost.token=g7.e41'", url(""))
	all[storeurl.GuardEnvVar] = "postgres://u:" + secret + "@variable/d"
	require.Contains(t, url(""), "@variable/d?options=-c%20fencepost.token%3Dg7.e41")
	require.Contains(t, url("postgres://argument/d"), "//argument/d?options=")
	all["PGOPTIONS"] = "-c a.b=1"
	require.Contains(t, url(""), "options=-c%20a.b%3D1%20-c%20fencepost")
}

func TestADatabaseThatCantBeGuardedIsConfigurationAndNotShown(t *testing.T) {
	none, err := storeurl.GuardOf("", storeurl.Config{Getenv: none})
	require.NoError(t, err)
	require.True(t, none.IsZero())
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, all := range []map[string]string{
		{storeurl.GuardEnvVar: secret}, {storeurl.GuardEnvVar: "mysql://u:" + secret + "@h/d"}, {storeurl.GuardEnvVar: "host=h password='" + secret},
		{storeurl.GuardFileEnvVar: empty}, {storeurl.GuardFileEnvVar: empty + "/absent"},
	} {
		_, err := storeurl.GuardOf("", storeurl.Config{Getenv: env(all)})
		require.Error(t, err)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.NotContains(t, err.Error(), secret)
	}
	_, err = storeurl.GuardOf("postgres://u:"+secret+"@h/d", storeurl.Config{Getenv: env(nil)})
	require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, storeurl.GuardFileEnvVar)
	require.NotContains(t, err.Error(), secret)
}
