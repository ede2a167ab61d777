// Command gen writes docs/errors.md to standard output: make docs.
package main

import (
	"os"

	"github.com/fencepost/fencepost/internal/errordoc"
)

func main() {
	if err := errordoc.Write(os.Stdout); err != nil {
		panic(err)
	}
}
