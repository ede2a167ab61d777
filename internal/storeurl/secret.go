package storeurl

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/fencepost/fencepost/exitcodes"
)

// CheckArgument refuses a URL from a command line that holds a password, since
// every user of the machine can read command lines. The error asks for the code
// for usage, 64, and does not show the URL. Where it can't be told what stands
// before an @, it counts as a password.
func CheckArgument(url string) error {
	if !hasPassword(url) {
		return nil
	}
	return exitcodes.WithCode(fmt.Errorf("a URL in the arguments holds a password, or what looks like one, and command lines show in process lists: "+
		"put that of the store into %s, or into a file that %s names, those of registers into %s or a file that %s names, and that of guarded sessions into %s or a file that %s names",
		EnvVar, FileEnvVar, RegistersEnvVar, RegistersFileEnvVar, GuardEnvVar, GuardFileEnvVar), exitcodes.Usage)
}

// hasPassword reads the URL by hand: a password that is not well escaped must
// be found too.
func hasPassword(text string) bool {
	if strings.HasPrefix(text, "sqlite:") {
		return false // a path, whatever it looks like
	}
	if _, rest, ok := strings.Cut(text, "://"); ok {
		text = rest
	}
	if at := strings.LastIndex(text, "@"); at >= 0 && strings.Contains(text[:at], ":") {
		return true
	}
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune("?&; \t\n", r) }) {
		key, value, _ := strings.Cut(word, "=")
		if plain, err := url.QueryUnescape(key); err == nil {
			key = plain
		}
		if value != "" && strings.Contains(strings.ToLower(key), "password") {
			return true
		}
	}
	return false
}
