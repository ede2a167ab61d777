// Command gen writes docs/errors.md anew, and the table of docs/supervisors.md:
// make docs, from the root of the repository.
package main

import (
	"os"
	"strings"

	"github.com/fencepost/fencepost/internal/errordoc"
)

func main() {
	var errors strings.Builder
	must(errordoc.Write(&errors))
	must(os.WriteFile("docs/errors.md", []byte(errors.String()), 0o644))

	page, err := os.ReadFile("docs/supervisors.md")
	must(err)
	anew, err := errordoc.Supervisors(string(page))
	must(err)
	must(os.WriteFile("docs/supervisors.md", []byte(anew), 0o644))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
