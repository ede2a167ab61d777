// Package large holds the recipes whose servers take minutes to compile: they are a
// module of their own, which make test-recipes runs and make test does not.
package large
