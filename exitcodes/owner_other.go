//go:build !unix

package exitcodes

import "os"

func takeAfter(file *os.File, old os.FileInfo) error { return file.Chmod(old.Mode()) }
