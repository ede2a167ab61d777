// Kvserver is a database server that speaks the Redis protocol, keeps its data
// in a catalog, and can be replaced by its next generation while it is in use.
// See `kvserver -h` and package kv.
package main

import "github.com/fencepost/fencepost/examples/kvserver/app"

func main() { app.Main(app.Options{}) }
