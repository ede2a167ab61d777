package driver

// As returns what else a store can do: itself, or the one that it wraps, as a T,
// such as [Watcher]. A store that wraps another and leaves the rest to it says
// so by a method Unwrap() Store.
func As[T any](s Store) (t T, ok bool) {
	for s != nil {
		if t, ok = s.(T); ok {
			return t, true
		}
		w, wraps := s.(interface{ Unwrap() Store })
		if !wraps {
			break
		}
		s = w.Unwrap()
	}
	return t, false
}
