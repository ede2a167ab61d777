// Package recipes tries, against real servers, how a store is guarded for which
// Fencepost has no package: the token stands in the store itself, and each write
// compares it in the same atomic step.
//
// A recipe needs no catalog at hand: a register that anybody raises by a write would
// let one forged token lock out everybody, so a register is raised by a step of its
// own, which a new holder takes behind its claim and before its work, and a write is
// admitted under the very token of the register.
package recipes
