package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show which build this is",
		Example: "  fencepost version --json",
		Args:    cobra.NoArgs,
		RunE: a.action(func(context.Context) error {
			b := readBuild(debug.ReadBuildInfo())
			return a.show(b, b.print)
		}),
	}
}

// A build is what the Go tool noted in the binary; a field is empty where it
// noted nothing.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Time     string `json:"time"`
	Modified bool   `json:"modified"` // built from a tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild(info *debug.BuildInfo, ok bool) build {
	if !ok {
		return build{Version: "unknown"}
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	return build{
		Version:  cmp.Or(info.Main.Version, "unknown"),
		Revision: settings["vcs.revision"],
		Time:     settings["vcs.time"],
		Modified: settings["vcs.modified"] == "true",
		Go:       info.GoVersion,
		Platform: settings["GOOS"] + "/" + settings["GOARCH"],
	}
}

func (b build) print(w io.Writer) error {
	text := "fencepost " + b.Version
	if b.Revision != "" {
		text += " " + b.Revision
	}
	if b.Modified {
		text += " (modified)"
	}
	_, err := fmt.Fprintf(w, "%s, %s %s\n", text, b.Go, b.Platform)
	return err
}
