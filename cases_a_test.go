package session

import "slices"

// The cases of group A: somebody becomes somebody else, or keeps what was
// taken away.
var casesA = slices.Concat(accountCases, cacheCases, webCasesA)

// The cases of accounts, keys and passwords.
var accountCases = []testCase{}
