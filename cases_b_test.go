package session

import "slices"

// The cases of group B: valid users are logged out or rejected.
var casesB = slices.Concat(webCasesB, poolCases, passwordCasesB, throttleCasesB)
