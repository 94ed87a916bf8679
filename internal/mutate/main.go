// Command mutate takes the defences that SECURITY.md lists away, one after the other, and shows that the test which the
// page names then fails. It changes no file: the compiler gets the changed ones by an overlay.
//
//	go run ./internal/mutate              # all: some eight minutes, as some tests then wait for ever
//	go run ./internal/mutate TestExpiry   # those of one test
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A mutation changes pieces of text, each of which stands once in its file.
type mutation struct {
	test  string
	takes string // what is taken away
	edits []edit
}

type edit struct{ file, old, new string }

var mutations = []mutation{
	{"TestTokens", "randomness", []edit{{"token.go", "rand.Read(random) ", "rand.Read(random[:0]) "}}},
	{"TestVerifierRemembers", "the hash of what is remembered", []edit{{"memo.go", "string(m.hash[:])", `""`}}},
	{"TestRefusals", "the comparison of the verifier", []edit{{"token.go", "bcrypt.CompareHashAndPassword(hash, []byte(t.verifier)) == nil", `t.verifier != ""`}}},
	{"TestTokensOfALogoutAreDead", "the end of a session", []edit{{"store.go", `"end the session", "DELETE FROM "+s.tokens+" WHERE id = ?"`, `"end the session", "DELETE FROM "+s.tokens+" WHERE id = ? AND 1 = 0"`}}},
	{"TestRevocationIsExactUnderLoad", "the look at the row on each request", []edit{
		{"session.go", "newCache[U](cfg.Cache)", "newCache[U](Cache{Fresh: time.Hour, Entries: 1000})"},
		{"session.go", "	m.store.changed = m.cache.forget\n", ""},
		{"session.go", "age <= m.cfg.Cache.Fresh", "age <= time.Hour"}}},
	{"TestSlideNeverRevivesARow", "the look at what a slide has changed", []edit{{"store.go", "browser, id, seconds(age))\n	return n == 1 ||", "browser, id, seconds(age))\n	return n >= 0 ||"}}},
	{"TestFamily", "the browser", []edit{{"fingerprint.go", "		return a == b", "		return true"}}},
	{"TestExpiry", "the idle timeout", []edit{{"session.go", "return r.now-r.active > seconds(m.cfg.MaxAge) ||", "return false ||"}}},
	{"TestExpiry", "the absolute timeout", []edit{{"session.go", "m.cfg.MaxLifetime > 0 && r.now", "false && r.now"}}},
	{"TestCookies", "HttpOnly", []edit{{"cookie.go", "HttpOnly: true", "HttpOnly: false"}}},
	{"TestCookies", "Secure", []edit{{"cookie.go", "Secure:   !c.Insecure", "Secure:   false"}}},
	{"TestCookies", "SameSite", []edit{{"cookie.go", "http.SameSiteStrictMode", "http.SameSiteLaxMode"}}},
	{"TestLoginReplacesTheSessionOfTheBrowser", "the end of the session before", []edit{{"session.go", "&v.record, before.record.id)", "&v.record, 0*before.record.id)"}}},
	{"TestGuessingIsSlowedDown", "the limit of an account", []edit{{"throttle.go", "Free: 5, ", "Free: 5000, "}}},
	{"TestSprayingIsSlowedDown", "the limit of an address", []edit{{"throttle.go", "Free: 50, First: time.Second, Longest: time.Minute", "Free: 5000, First: time.Second, Longest: time.Minute"}}},
	{"TestGuessesAtOnce", "counting before trying", []edit{{"throttle.go", "	if p.count > 0 && f.count+p.count >= limit.Free {", "	if false {"}}},
	{"TestGuessingIsSlowedDown", "the owner's way in", []edit{{"throttle.go", "throttleKey(\"account\", identifier, smallest(networks))", `throttleKey("account", identifier)`}}},
	{"TestInvalidCredentials", "one error for all", []edit{{"account.go", "		m.tell(r, EventFailed, &record{owner: user.key}, nil)\n", "		if user.key == nil {\n			return ErrUserGone\n		}\n"}}},
	{"TestRefusalsDoTheSameWork", "the work for a missing user", []edit{{"password.go", "	p.compare(dummy(highest), []byte(password))", "	_ = highest"}}},
	{"TestRefusalsDoTheSameWork", "the work for hashes of lower cost", []edit{{"password.go", "	p.spend(cost, password)\n", ""}}},
	{"TestInvalidCredentials", "hashing the password", []edit{{"password.go", "	if p.compare(hash, []byte(password)) == nil {", "	if string(hash) == password || p.compare(hash, []byte(password)) == nil {"}}},
	{"TestOpenKeepsTheCharset", "the charset", []edit{{"open.go", "	cfg.Apply(mysql.Charset(\"utf8mb4\", cfg.Collation))", "	_ = mysql.Charset"}}},
	{"TestInvalidCredentials", "exact integers", []edit{{"store.go", "	case c.kind == textColumn:\n		return text,", "	case c.kind == textColumn || c.kind == integerColumn:\n		return text,"}}},
	{"TestRefusalsDoTheSameWork", "the limit of a hash's cost", []edit{{"password.go", "err != nil || cost > maxPasswordCost", "err != nil || cost > 99"}}},
	{"TestLoginsAreBounded", "the end of the queue", []edit{{"password.go", "> int64(maxQueue*cap(p.slots))", "> 1<<40"}}},
	{"TestForgeries", "the look at what was made up", []edit{{"session.go", "} else if t.forged() {", "} else if false {"}}},
	{"TestForgeries", "the pace of their look-ups", []edit{{"throttle.go", "return p.n <= maxForgeries", "return true"}}},
	{"TestStrangersHoldUpNobody", "the way of known sessions around bcrypt", []edit{
		{"session.go", "	if memory.id != 0 {\n", "	if false {\n"},
		{"memo.go", "if v.recall(key.memoKey).of(r) {", "if false {"}}},
	{"TestLostAnswers", "the memory that a try may have been done", []edit{{"retry.go", "			again = true\n", ""}}},
	{"TestLostAnswers", "the look for a session that was saved", []edit{{"store.go", "s.saved(ctx, r.selector); id != 0 || err != nil", "s.saved(ctx, r.selector); err != nil"}, {"store.go", "		if isError(err, erDuplicate) {\n			id,", "		if false {\n			id,"}}},
	{"TestLoginWithoutAnAnswer", "the failure of a login that may not be saved", []edit{{"store.go", "	if err != nil {\n		return 0, 0, err\n	}\n	return id, int64(len(surplus)), nil", "	return id, int64(len(surplus)), nil"}}},
	{"TestClientsThatLeave", "the end of what was begun", []edit{{"session.go", "m.store.insert(steadfast(r.Context())", "m.store.insert(r.Context()"}}},
	{"TestTimeout", "the deadline of a look-up alone", []edit{{"lookup.go", "ok || !l.prompt || !l.roomy()", "ok"}}},
	{"TestTimeout", "the deadline of a batch", []edit{{"lookup.go", "	b.ctx, b.end = context.WithTimeout(context.Background(), l.store.timeout)", "	b.ctx, b.end = context.WithCancel(context.Background())"}}},
	{"TestReplica", "the second look", []edit{{"session.go", "	late, ended := row, err\n", "	if late := row; late != nil || err != nil {\n		return late, err\n	}\n	late, ended := row, err\n"}}},
	{"TestThrottleOfAClockThatWentBack", "the look at the clock", []edit{{"throttle_mysql.go", "if since < -60 {", "if false {"}}},
	{"FuzzMiddleware", "the comparison of the verifier", []edit{{"token.go", "bcrypt.CompareHashAndPassword(hash, []byte(t.verifier)) == nil", `t.verifier != ""`}}},
	{"TestSessionsAndRevoke", "the owner of a session", []edit{{"store.go", `"id = ? AND user = ?", id, user)`, `"id = ? AND (user = ? OR 1 = 1)", id, user)`}}},
	{"TestDatabaseFailure", "the answer to a failure", []edit{{"middleware.go", "				m.unknown(w, r, err)\n				return\n", "				v.err = ErrUnknown\n"}}},
	{"TestReturnTo", "the look at the host", []edit{{"middleware.go", `strings.HasPrefix(target, "//") ||`, "false ||"}, {"middleware.go", `err == nil && u.Host == "" && !strings.Contains(u.Path, "//")`, "err == nil && u != nil"}}},
	{"TestRegisterBadFields", "the list of columns", []edit{{"account.go", "case !slices.Contains(options.Columns, name):", "case false:"}}},
	{"TestRegisterAtOnce", "the answer of the unique index", []edit{{"store.go", "	case isError(err, erDuplicate):\n		field,", "	case false:\n		field,"}}},
	{"TestSetPassword", "the end of other sessions", []edit{{"account.go", "	return m.LogoutOthers(w, r)", "	return nil"}}},
	{"TestSetPassword", "the old password", []edit{{"account.go", "	if old != \"\" {\n", "	if false {\n"}, {"account.go", "		attempt, err := m.attempt(r, nil, user.key)", "		attempt, err := m.attempt(r, nil, nil)"}}},
	{"TestPasswordChangedDuringALogin", "the second look at the password", []edit{{"session.go", "	if confirm != nil {", "	if false {"}}},
	{"TestFresh", "the time of the login", []edit{{"middleware.go", "v.record.now-v.record.created <= seconds(within)", "v.record.now-v.record.created <= seconds(within)+1<<40"}}},
	{"TestMaxSessions", "the turn of each login", []edit{{"store.go", ` = ? FOR UPDATE", user)`, ` = ?", user)`}}},
	{"TestSecretsAreNotPrinted", "the mask of a token", []edit{{"token.go", `func (token) String() string       { return "[session token]" }`, "func (t token) String() string     { return t.verifier }"}}},
	{"TestLinksOfOtherSites", "no-store", []edit{{"cookie.go", `header.Set("Cache-Control", "no-store")`, `header.Set("Cache-Control", "private")`}}},
	{"TestMySQLThrottleSecret", "the secret", []edit{{"throttle_mysql.go", "if t.secret == nil {", "if true {"}}},
	{"TestCases/B4_right_logins_at_once", "the end of a reservation", []edit{{"throttle.go", "	case AttemptFailed:\n		f, _", "	default:\n		f, _"}, {"throttle.go", "	case AttemptSucceeded:\n		t.entries", "	case 99:\n		t.entries"}}},
	{"TestCases/B4_guesses_at_once_of_several_servers", "the attempts in progress", []edit{{"throttle_mysql.go", "failed + pending < ?", "failed < ?"}}},
	{"TestCases/B4_attempts_that_end_otherwise", "the end after a panic", []edit{{"account.go", "	defer attempt.failed(r.Context()) // unless", "	// unless"}}},
	{"TestCases/C1_spellings_of_one_account", "the weights", []edit{{"identifier.go", "if err != nil || weight == nil {", "if true {"}}},
	{"TestCases/C1_spellings_of_one_account", "the spaces at the end", []edit{{"identifier.go", "for len(space) > 0 && ", "for false && "}}},
	{"TestCases/C1_spellings_in_other_columns", "the count of what a column can't hold", []edit{{"session.go", "arg = credentials[name] // for the throttle", "arg = new(int)"}}},
	{"TestCases/C2_networks_of_IPv6", "the /56 and the /48", []edit{{"throttle.go", "[]int{64, 56, 48}", "[]int{64}"}}},
	{"TestCases/C2_one_account_from_everywhere", "the limit from everywhere", []edit{{"throttle.go", "Free: 100,", "Free: 5000,"}}},
	{"TestCases/C2_one_account_from_everywhere", "the user's key", []edit{{"throttle.go", "		account = accountName(user)\n", ""}}},
	{"TestCases/C2_one_account_from_everywhere", "the look at the browser", []edit{{"throttle.go", " && m.cfg.Fingerprint.Match(v.record.browser, m.browser(r)):", ":"}}},
	{"TestCases/C3_forms_of_an_address", "the last address of a list", []edit{{"throttle.go", "	text = text[strings.LastIndexByte(text, ',')+1:]\n", "	text, _, _ = strings.Cut(text, \",\")\n"}}},
	{"TestCases/C3_unread_addresses", "the count of an account at no address", []edit{{"throttle.go", `		return "unknown"`, "		return fmt.Sprint(time.Now())"}}},
	{"TestCases/C4_colleague_of_a_guesser", "the count of a known client", []edit{{"throttle.go", "	if own != \"\" {", "	if false {"}}},
	{"TestCases/C5_flood_of_registrations", "the look for what is taken", []edit{{"account.go", "err == nil && field != \"\" {", "false {"}, {"account.go", "if field, err :=", "if _, err :="}}},
	{"TestCases/C5_flood_of_registrations", "the count of what was taken", []edit{{"account.go", "		attempt.failed(r.Context())\n	}\n	if err", "	}\n	if err"}}},
	{"TestCases/C5_places_of_a_network", "the places", []edit{{"throttle.go", "make(chan struct{}, 4*max", "make(chan struct{}, 4000*max"}}},
}

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		log.Fatal(err)
	}
	survived := 0
	for _, m := range mutations {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], m.test) {
			continue
		}
		verdict := m.run(dir)
		if verdict != "caught" {
			survived++
		}
		fmt.Printf("%-8s  %-42s without %s\n", verdict, m.test, m.takes)
	}
	os.RemoveAll(dir)
	if survived > 0 {
		log.Fatalf("%d were not caught", survived)
	}
	fmt.Println("all were caught")
}

// run tells whether the test catches a mutation.
func (m mutation) run(dir string) string {
	sources := map[string]string{}
	for _, e := range m.edits {
		path, err := filepath.Abs(e.file)
		if err != nil {
			log.Fatal(err)
		}
		if sources[path] == "" {
			text, err := os.ReadFile(path)
			if err != nil {
				log.Fatal(err)
			}
			sources[path] = string(text)
		}
		if n := strings.Count(sources[path], e.old); n != 1 {
			return fmt.Sprintf("stands %d times: %q", n, e.old)
		}
		sources[path] = strings.Replace(sources[path], e.old, e.new, 1)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range sources {
		changed := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			log.Fatal(err)
		}
		overlay.Replace[path] = changed
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		log.Fatal(err)
	}
	out, err := exec.Command("go", "test", "-count=1", "-timeout=60s", "-overlay="+file, "-run=^"+strings.Replace(m.test, "/", "$/^", 1)+"$", ".").CombinedOutput()
	switch {
	case strings.Contains(string(out), "[build failed]"):
		return "does not build: " + string(out)
	case err == nil || strings.Contains(string(out), "no tests to run"):
		return "SURVIVED"
	}
	return "caught"
}
