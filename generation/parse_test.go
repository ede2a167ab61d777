package generation_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

func TestParseReadsTheDecimalForm(t *testing.T) {
	for text, want := range map[string]generation.Generation{"1": 1, "42": 42, "9223372036854775807": generation.Max} {
		g, err := generation.Parse(text)
		require.NoError(t, err)
		require.Equal(t, want, g)
	}
}

func TestParseTakesNoOtherForm(t *testing.T) {
	for _, text := range []string{"", "0", "00", "01", "+1", "-1", " 1", "1 ", "1\n", "1.0", "1e3", "0x1", "1_000", "g1", "١"} {
		g, err := generation.Parse(text)
		require.ErrorIs(t, err, generation.ErrMalformed, "%q", text)
		require.Equal(t, generation.None, g)
	}
}

func TestParseAboveMaxIsAnOverflow(t *testing.T) {
	for _, text := range []string{"9223372036854775808", "18446744073709551615", "18446744073709551616"} {
		_, err := generation.Parse(text)
		require.ErrorIs(t, err, generation.ErrOverflow, text)
		require.NotErrorIs(t, err, generation.ErrMalformed, text)
	}
}

func FuzzParseTakesOnlyWhatStringWrites(f *testing.F) {
	for _, seed := range []string{"1", "0", "01", "9223372036854775807", "9223372036854775808", "-1", "+1", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := generation.Parse(text)
		if err != nil {
			require.Equal(t, generation.None, g)
			return
		}
		require.Equal(t, text, g.String())
		require.NotZero(t, g)
		require.LessOrEqual(t, g, generation.Max)
	})
}

func env(value string) func(string) string {
	return func(name string) string {
		if name == generation.EnvVar {
			return value
		}
		return "99"
	}
}

func TestResolvePrefersTheFlag(t *testing.T) {
	g, err := generation.Resolve(7, env("8"))
	require.NoError(t, err)
	require.EqualValues(t, 7, g)
	g, err = generation.Resolve(7, env("nonsense"))
	require.NoError(t, err, "the variable is not asked")
	require.EqualValues(t, 7, g)
	g, err = generation.Resolve(generation.None, env("8"))
	require.NoError(t, err)
	require.EqualValues(t, 8, g)
}

func TestResolveWithoutAGenerationIsConfiguration(t *testing.T) {
	cases := []struct {
		name string
		flag generation.Generation
		env  string
		want error
	}{
		{"nothing given", 0, "", generation.ErrMissing},
		{"a zero", 0, "0", generation.ErrMalformed},
		{"a word", 0, "blue", generation.ErrMalformed},
		{"too large a variable", 0, "9223372036854775808", generation.ErrOverflow},
		{"too large a flag", generation.Max + 1, "1", generation.ErrOverflow},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g, err := generation.Resolve(c.flag, env(c.env))
			require.ErrorIs(t, err, c.want)
			require.Equal(t, generation.None, g)
			var coded interface {
				error
				ExitCode() exitcodes.Code
				Disposition() exitcodes.Disposition
			}
			require.ErrorAs(t, err, &coded)
			require.Equal(t, exitcodes.Config, coded.ExitCode())
			require.EqualValues(t, 78, coded.ExitCode())
			require.Equal(t, exitcodes.Halt, coded.Disposition())
		})
	}
}

func TestResolveNamesTheVariable(t *testing.T) {
	for _, value := range []string{"", "blue"} {
		_, err := generation.Resolve(generation.None, env(value))
		require.ErrorContains(t, err, "FENCEPOST_GENERATION")
	}
}
