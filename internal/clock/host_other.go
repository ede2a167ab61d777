//go:build !linux

package clock

// Host is empty: the system does not say which boot of which host this is.
func Host() string { return "" }
