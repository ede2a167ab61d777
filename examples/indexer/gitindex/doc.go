// Package gitindex keeps a package index in a git repository on disk, and lets
// only the holder of the newest token change it.
//
// A [Checkout] makes the index's file of one package equal to what its caller
// wants, commits that and pushes it. Each call begins with a fetch and a hard reset,
// so what a predecessor left half done is harmless. The checkout is kept between
// calls.
//
// # The guard
//
// Each commit bears the token of the run that made it, as the trailer
// Fencing-Token. The repository's update hook, [Guard], asks the catalog for the
// newest token at each push and refuses every other one. A push that the hook let
// through can still be delayed before git moves the branch; git then moves it only if
// the branch is where it was when the push began. So two rules make a late push of an
// old worker harmless:
//
//   - the hook refuses a token that is not the newest;
//   - Sync returns only if the newest commit of the index bears its own token. If the
//     index has the wanted content already, it pushes a commit without changes.
//
// The second rule is needed: a package that is yanked and unyanked again has its old
// content, so its sync would push nothing, and a delayed push of the yank would still
// find the branch in its place.
//
// A repository without the hook is not used: a Checkout tries once whether a push is
// refused that must be.
//
// # What is not decided here
//
// Whether this process is superseded: a refusal is a hint, and only the head of the
// catalog decides.
package gitindex
