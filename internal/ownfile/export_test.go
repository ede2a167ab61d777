package ownfile

import "os"

// MakingThat makes files of mode 0600 to which give is done.
func MakingThat(give func(*os.File) error) Making { return Making{0o600, give} }
