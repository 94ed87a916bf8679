package session

import "slices"

// The cases of group C: guessing and flooding.
var casesC = slices.Concat(throttleCasesC, passwordCasesC)
