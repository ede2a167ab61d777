// Package orders enumerates the orders in which things can happen, for tests that
// sample none.
package orders

import "slices"

// Permutations returns every order of some things.
func Permutations[T any](things []T) (all [][]T) {
	if len(things) == 0 {
		return [][]T{nil}
	}
	for i, first := range things {
		rest := slices.Delete(slices.Clone(things), i, i+1)
		for _, p := range Permutations(rest) {
			all = append(all, append([]T{first}, p...))
		}
	}
	return all
}

// Merges returns every merge of two sequences that keeps the order of each.
func Merges[T any](a, b []T) (all [][]T) {
	if len(a) == 0 || len(b) == 0 {
		return [][]T{slices.Concat(a, b)}
	}
	for _, m := range Merges(a[1:], b) {
		all = append(all, append([]T{a[0]}, m...))
	}
	for _, m := range Merges(a, b[1:]) {
		all = append(all, append([]T{b[0]}, m...))
	}
	return all
}

// A Step is one of what a side does, in its order.
type Step struct{ Who, What string }

// Steps returns the steps of one side.
func Steps(who string, what ...string) (all []Step) {
	for _, w := range what {
		all = append(all, Step{Who: who, What: w})
	}
	return all
}
