//go:build !linux

package sqlite

// oneLibrary can't be told here.
func oneLibrary(string) error { return nil }

func openHere(string) int { return 0 }

func mapped(string) bool { return false }
