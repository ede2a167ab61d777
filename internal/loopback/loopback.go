// Package loopback says which addresses belong to this host alone, and keeps an
// API to requests that come from it.
package loopback

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Only passes on the requests that come from this host and name it as their
// Host, and has refuse answer all others. The Host counts because another site
// can make a browser of this host look up its name here.
func Only(next http.Handler, refuse http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Is(r.RemoteAddr) || !Is(r.Host) {
			refuse(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Is reports whether address, with or without a port, is one of loopback. Of all
// names only localhost is.
func Is(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Check refuses an address of an admin API that other hosts could reach.
func Check(address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("the admin address %q: %w", address, err)
	}
	if !Is(address) {
		return fmt.Errorf("the admin address %q is not on loopback: whoever reaches it can promote; name 127.0.0.1, [::1] or localhost", address)
	}
	return nil
}
