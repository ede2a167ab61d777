package exitcodes_test

import (
	"bytes"
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

func TestAWrongCommandLineEndsWith64AndNotWithTheTwoOfPackageFlag(t *testing.T) {
	cmd, wait := playing(t, "flags")
	cmd.Args = append(cmd.Args, "-nope")
	require.NoError(t, cmd.Start())
	p := wait()
	require.Equal(t, 64, p.code, p.stderr)
	require.Equal(t, "db: flag provided but not defined: -nope: see the-program -h (halt, exit 64)\n", p.stderr)
}

func TestHelpThatWasAskedForIsNoMistake(t *testing.T) {
	var out bytes.Buffer
	flags := flag.NewFlagSet("db", flag.ExitOnError)
	flags.SetOutput(&out)
	address := flags.String("listen", "", "the `address` for clients")
	require.ErrorIs(t, exitcodes.ParseFlags(flags, []string{"-h"}), flag.ErrHelp)
	require.Contains(t, out.String(), "-listen address")
	require.NoError(t, exitcodes.ParseFlags(flags, []string{"-listen", ":1", "more"}))
	require.Equal(t, ":1", *address)
	require.Equal(t, []string{"more"}, flags.Args())
	err := exitcodes.ParseFlags(flags, []string{"-listen"})
	require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, "flag needs an argument: -listen: see db -h")
}
