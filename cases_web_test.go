package session

// The cases of cookies and of visits from other sites.
var (
	webCasesA = []testCase{}
	webCasesB = []testCase{}
)
