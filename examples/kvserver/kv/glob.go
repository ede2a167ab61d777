package kv

// globMatch reports whether key matches a pattern as Redis writes them: * for
// any bytes, ? for one, [a-c] and [^a-c] for one of a set, and \ before a byte
// that stands for itself. Its time is bounded by the product of the lengths:
// only the last star is ever tried again, which is enough, as what was matched
// before it can only leave less to be matched.
func globMatch(pattern []byte, key string) bool {
	p, k := 0, 0
	star, tried := -1, 0
	for k < len(key) {
		if p < len(pattern) && pattern[p] == '*' {
			star, tried = p, k
			p++
			continue
		}
		if width, ok := matchOne(pattern[p:], key[k]); ok {
			p += width
			k++
			continue
		}
		if star < 0 {
			return false
		}
		tried++
		p, k = star+1, tried
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one byte against the beginning of a pattern, and returns how
// many bytes of the pattern that took.
func matchOne(pattern []byte, b byte) (width int, ok bool) {
	switch {
	case len(pattern) == 0:
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '[':
		return matchSet(pattern, b)
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == b
	default:
		return 1, pattern[0] == b
	}
}

// matchSet matches one byte against a set. One that isn't closed ends with the
// pattern.
func matchSet(pattern []byte, b byte) (width int, ok bool) {
	i := 1
	negated := i < len(pattern) && pattern[i] == '^'
	if negated {
		i++
	}
	for i < len(pattern) && pattern[i] != ']' {
		low, n := setByte(pattern[i:])
		i += n
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high, n = setByte(pattern[i+1:])
			i += 1 + n
		}
		ok = ok || min(low, high) <= b && b <= max(low, high)
	}
	return min(i+1, len(pattern)), ok != negated
}

// setByte reads one byte of a set, which a backslash may precede.
func setByte(pattern []byte) (b byte, width int) {
	if pattern[0] == '\\' && len(pattern) > 1 {
		return pattern[1], 2
	}
	return pattern[0], 1
}
