// Package errormatrix makes real servers produce the errors that the drivers'
// tables list, and checks that each comes out of the driver as its table says,
// and that no commit is lost or lands over it. It has tests only.
package errormatrix
