package session

// The cases of the app's own pools, tables and user types, and of the cache.
var (
	poolCases  = []testCase{}
	cacheCases = []testCase{}
)
