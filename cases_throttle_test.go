package session

// The cases of guessing passwords.
var (
	throttleCasesB = []testCase{}
	throttleCasesC = []testCase{}
)
