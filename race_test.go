//go:build race

package session

// raceEnabled reports whether the race detector is on, which makes bcrypt ten
// times as slow.
const raceEnabled = true
