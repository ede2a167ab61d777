package storeurl_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

func TestEachSchemeOpensItsRegister(t *testing.T) {
	t.Parallel()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for url, want := range map[string]string{
		"sqlite:rel/app.db":                           "sqlite:" + dir + "/rel/app.db (register)",
		"sqlite:///abs/app.db?filesystem=trusted":     "sqlite:/abs/app.db (register)",
		"etcd://h1:2379,h2:2379/some/prefix?lease=3s": "etcd://h1:2379,h2:2379/some/prefix (register)",
		"etcds://h1:2379/p":                           "etcds://h1:2379/p (register)",
		"postgres://u@127.0.0.1:1/d?catalog=app":      "postgres://127.0.0.1:1/d?catalog=app (register)",
		"postgresql://u@127.0.0.1:1/d":                "postgres://127.0.0.1:1/d?catalog=main (register)",
	} {
		r, err := storeurl.OpenRegister(t.Context(), url, storeurl.Config{Getenv: none})
		require.NoError(t, err, url)
		require.Equal(t, want, r.String())
		require.NoError(t, r.Close())
	}
}

func TestAURLThatNamesNoRegisterIsConfiguration(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"":                          "the register is no URL",
		"app.db":                    "the register is no URL",
		"redis://h":                 `"redis"`,
		"sqlite:":                   "names no file",
		"sqlite:app.db?x=y":         "one parameter",
		"sqlite://h/app.db":         "the URL of the register names a host",
		"etcd://h:1":                "prefix",
		"postgres://h/d?catalog=NO": "catalog",
	} {
		r, err := storeurl.OpenRegister(t.Context(), url, storeurl.Config{Getenv: none})
		require.ErrorContains(t, err, says, url)
		require.Nil(t, r, "a nil pointer in the clothes of a register")
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), url)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), url)
	}
}

func TestRegistersComeFromArgumentsOrElseFromTheVariableOrElseFromTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "urls")
	require.NoError(t, os.WriteFile(file, []byte("\npostgres://h1/file\n  postgres://h2/file \n"), 0o600))
	vars := map[string]string{}
	names := func(arguments ...string) (names []string) {
		all, err := storeurl.OpenRegisters(t.Context(), arguments, storeurl.Config{Getenv: env(vars)})
		require.NoError(t, err)
		for _, r := range all {
			names = append(names, r.String())
			require.NoError(t, r.Close())
		}
		return names
	}
	const suffix = "?catalog=main (register)"
	require.Empty(t, names())
	vars[storeurl.RegistersFileEnvVar] = file
	require.Equal(t, []string{"postgres://h1:5432/file" + suffix, "postgres://h2:5432/file" + suffix}, names())
	vars[storeurl.RegistersEnvVar] = "postgres://h/variable\npostgres://h/second"
	require.Equal(t, []string{"postgres://h:5432/variable" + suffix, "postgres://h:5432/second" + suffix}, names())
	require.Equal(t, []string{"postgres://h:5432/argument" + suffix}, names("postgres://h/argument"))
}

func TestAnArgumentNamesARegisterByItsURLOrByItsNumberInTheList(t *testing.T) {
	t.Parallel()
	vars := map[string]string{storeurl.RegistersEnvVar: "postgres://u:" + secret + "@h/first\nsqlite:/second.db"}
	named := func(argument string) (string, error) {
		r, err := storeurl.OpenRegisterArgument(t.Context(), argument, storeurl.Config{Getenv: env(vars)})
		if err != nil {
			return "", err
		}
		defer func() { require.NoError(t, r.Close()) }()
		return r.String(), nil
	}
	for argument, want := range map[string]string{
		"1": "postgres://h:5432/first?catalog=main (register)", "2": "sqlite:/second.db (register)", "sqlite:/third.db": "sqlite:/third.db (register)",
	} {
		name, err := named(argument)
		require.NoError(t, err)
		require.Equal(t, want, name)
	}
	for argument, want := range map[string]exitcodes.Code{
		"0": exitcodes.Config, "3": exitcodes.Config, "-1": exitcodes.Config, "99999999999999999999": exitcodes.Config,
		"postgres://u:" + secret + "@h/d": exitcodes.Usage,
	} {
		_, err := named(argument)
		require.Error(t, err)
		require.NotContains(t, err.Error(), secret)
		require.Equal(t, want, exitcodes.CodeOf(err), argument)
	}
}

func TestAListOfRegistersThatNamesNoneIsConfiguration(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	for _, vars := range []map[string]string{
		{storeurl.RegistersEnvVar: " \n "},
		{storeurl.RegistersFileEnvVar: empty},
		{storeurl.RegistersFileEnvVar: filepath.Join(t.TempDir(), "absent")},
		{storeurl.RegistersEnvVar: "postgres://h/d\nnonsense"},
	} {
		all, err := storeurl.OpenRegisters(t.Context(), nil, storeurl.Config{Getenv: env(vars)})
		require.Error(t, err, vars)
		require.Empty(t, all)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), vars)
	}
}

func TestARegisterInTheArgumentsThatHoldsAPasswordIsRefusedAndNotShown(t *testing.T) {
	t.Parallel()
	_, err := storeurl.OpenRegisters(t.Context(), []string{"postgres://h/d", "postgres://u:" + secret + "@h/d"}, storeurl.Config{Getenv: none})
	require.ErrorContains(t, err, storeurl.RegistersEnvVar)
	require.NotContains(t, err.Error(), secret)
	require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	all, err := storeurl.OpenRegisters(t.Context(), nil, storeurl.Config{Getenv: env(map[string]string{storeurl.RegistersEnvVar: "postgres://u:" + secret + "@h/d"})})
	require.NoError(t, err)
	require.NotContains(t, all[0].String(), secret)
	require.NoError(t, all[0].Close())
}
