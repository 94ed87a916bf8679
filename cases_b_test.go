package session

import "slices"

// The cases of group B: people thrown out or turned away.
var casesB = slices.Concat(webCasesB, poolCases, passwordCasesB, throttleCasesB)
