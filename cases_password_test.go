package session

// The cases of password hashes, of bcrypt under load and of fingerprints.
var (
	passwordCasesB = []testCase{}
	passwordCasesC = []testCase{}
)
