// Package work runs durable jobs in the process that holds a catalog's token.
package work
