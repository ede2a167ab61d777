package exitcodes

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
)

// ParseFlags parses args for a program that ends by [Main], in place of
// flags.Parse. A mistake is an error with the code [Usage], 64, which says where
// the flags are explained, and prints nothing. By itself package flag ends such a
// program with 2, which means here that an invariant is broken: a supervisor would
// raise an alarm and start it again.
//
// For -h the error matches flag.ErrHelp, and the flags are explained on
// flags.Output(). It belongs to nobody's mistake, so such a program ends with 0:
//
//	err := exitcodes.ParseFlags(flag.CommandLine, os.Args[1:])
//	if errors.Is(err, flag.ErrHelp) {
//		return
//	}
//	exitcodes.Main(func(ctx context.Context) error {
//		if err != nil {
//			return err
//		}
//		return serve(ctx)
//	}, exitcodes.Options{})
func ParseFlags(flags *flag.FlagSet, args []string) error {
	flags.Init(flags.Name(), flag.ContinueOnError)
	out := flags.Output()
	var explained bytes.Buffer // not on standard error, which may not be read
	flags.SetOutput(&explained)
	err := flags.Parse(args)
	flags.SetOutput(out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, broken := out.Write(explained.Bytes())
		return errors.Join(err, broken)
	case err != nil:
		return WithCode(fmt.Errorf("%w: see %s -h", err, flags.Name()), Usage)
	}
	return nil
}
