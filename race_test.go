//go:build race

package session

// raced tells tests that they run under the race detector, which makes bcrypt ten times as slow.
const raced = true
