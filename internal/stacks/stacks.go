// Package stacks tells where all goroutines of this process are.
package stacks

import (
	"bytes"
	"runtime"
	"slices"
)

// All returns the stacks of all goroutines, at most 16 MiB of them: those first in
// which a function of this name is running. Empty: in the runtime's order.
func All(first string) []byte {
	all := read()
	if first == "" {
		return all
	}
	each := bytes.Split(bytes.TrimRight(all, "\n"), []byte("\n\n"))
	slices.SortStableFunc(each, func(a, b []byte) int { return rank(a, first) - rank(b, first) })
	return append(bytes.Join(each, []byte("\n\n")), '\n')
}

func rank(stack []byte, first string) int {
	if bytes.Contains(stack, []byte(first)) {
		return 0
	}
	return 1
}

func read() []byte {
	for size := 1 << 16; ; size *= 2 {
		buf := make([]byte, size)
		n := runtime.Stack(buf, true)
		if n < size || size >= 1<<24 {
			return buf[:n]
		}
	}
}
