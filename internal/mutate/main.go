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
		{"session.go", "since <= m.cfg.Cache.Fresh", "age <= time.Hour"}}},
	{"TestSlideNeverRevivesARow", "the look at what a slide has changed", []edit{{"store.go", "browser, id, seconds(age))\n	return n == 1 ||", "browser, id, seconds(age))\n	return n >= 0 ||"}}},
	{"TestFamily", "the browser", []edit{{"fingerprint.go", "		return a == b\n", "		return true\n"}}},
	{"TestExpiry", "the idle timeout", []edit{{"session.go", "return r.now-r.active > seconds(m.cfg.MaxAge) ||", "return false ||"}}},
	{"TestExpiry", "the absolute timeout", []edit{{"session.go", "m.cfg.MaxLifetime > 0 && r.now", "false && r.now"}}},
	{"TestCookies", "HttpOnly", []edit{{"cookie.go", "HttpOnly: true", "HttpOnly: false"}}},
	{"TestCookies", "Secure", []edit{{"cookie.go", "Secure:   !c.Insecure", "Secure:   false"}}},
	{"TestCookies", "SameSite", []edit{{"cookie.go", "SameSite: c.SameSite", "SameSite: http.SameSiteLaxMode"}}},
	{"TestLoginReplacesTheSessionOfTheBrowser", "the end of the session before", []edit{{"session.go", "&v.record, before.record.id)", "&v.record, 0*before.record.id)"}}},
	{"TestGuessingIsSlowedDown", "the limit of an account", []edit{{"throttle.go", "Free: 5, ", "Free: 5000, "}}},
	{"TestSprayingIsSlowedDown", "the limit of an address", []edit{{"throttle.go", "Free: 50, First: time.Second, Longest: time.Minute", "Free: 5000, First: time.Second, Longest: time.Minute"}}},
	{"TestGuessesAtOnce", "counting before trying", []edit{{"throttle.go", "	if p.count > 0 && f.count+p.count >= limit.Free {", "	if false {"}}},
	{"TestGuessingIsSlowedDown", "the owner's way in", []edit{{"throttle.go", "throttleKey(\"account\", identifier, smallest(networks))", `throttleKey("account", identifier)`}}},
	{"TestInvalidCredentials", "one error for all", []edit{{"account.go", "		m.tell(r, EventFailed, &record{owner: user.key}, nil)\n", "		if user.key == nil {\n			return ErrUserGone\n		}\n"}}},
	{"TestRefusalsDoTheSameWork", "the work for a missing user", []edit{{"password.go", "	p.compared(dummy(highest), highest, password)", "	_ = highest"}}},
	{"TestRefusalsDoTheSameWork", "the work for hashes of lower cost", []edit{{"password.go", "		p.spend(cost, form)\n", "		_ = form\n"}}},
	{"TestInvalidCredentials", "hashing the password", []edit{{"password.go", "		if p.compared(unpadded(hash), cost, form) {", "		if string(hash) == form || p.compared(unpadded(hash), cost, form) {"}}},
	{"TestOpenKeepsTheCharset", "the charset", []edit{{"open.go", "	cfg.Apply(mysql.Charset(\"utf8mb4\", cfg.Collation))", "	_ = mysql.Charset"}}},
	{"TestInvalidCredentials", "exact integers", []edit{{"store.go", "strconv.FormatInt(n, 10) == converted {", "true {"}, {"store.go", "	n, err := strconv.ParseUint(converted, 10, 64)\n	possible = err == nil &&", "	n, err := strconv.ParseUint(converted, 10, 64)\n	if err != nil {\n		return converted, true, nil\n	}\n	possible = err == nil &&"}}},
	{"TestRefusalsDoTheSameWork", "the limit of a hash's cost", []edit{{"password.go", "return cost <= maxPasswordCost", "return cost <= 99"}}},
	{"TestCases/C7_texts_that_look_like_bcrypt", "the look at all of a hash", []edit{{"password.go", "if !bcryptGrammar.Match(hash) {", "if false {"}}},
	{"TestCases/C6_a_turn_within_the_timeout", "the end of waiting", []edit{{"password.go", "		late = timer.C\n", ""}}},
	{"TestCases/C10_hashes_of_another_library", "the work of other hashes", []edit{{"password.go", "		p.legacy(slowest.text, form)\n", "		_ = form\n"}}},
	{"TestCases/C10_bcrypt_of_other_costs", "the sample", []edit{{"password.go", "	p.learn(ctx)\n", ""}}},
	{"TestCases/B10_forms_of_a_password", "normalization", []edit{{"password.go", "	return norm.NFC.String(password)", "	return password"}}},
	{"TestCases/B10_forms_of_a_password", "the forms of before", []edit{{"password.go", "		forms = append(forms, nfd)\n", "		_ = nfd\n"}}},
	{"TestCases/B6_media_players", "the device of a media player", []edit{{"fingerprint.go", `		return strings.Contains(stored, "("+m[1]+";") ||`, "		return true ||"}}},
	{"TestCases/B6_media_players", "the browser that stays stored", []edit{{"session.go", "lasting(v.record.browser, m.browser(r))", "m.browser(r)"}}},
	{"TestCases/B6_one_browser_in_other_words", "the networks", []edit{{"fingerprint.go", "	userAgent = networkName.ReplaceAllString(userAgent, \"$1$2\")\n", ""}}},
	{"TestCases/C8_wrong_verifiers_for_one_session", "the turn of a row", []edit{{"memo.go", "make(chan struct{}, 1)}", "make(chan struct{}, 1000)}"}}},
	{"TestCases/C8_wrong_verifiers_for_many_sessions", "the lane of attacked rows", []edit{{"memo.go", "attacked && !take(v.lane) ||", "false && attacked ||"}}},
	{"TestCases/C9_OnEvent_panics", "the end of a panic", []edit{{"event.go", "reason := recover(); reason != nil", "reason := any(nil); reason != nil"}}},
	{"TestLoginsAreBounded", "the end of the queue", []edit{{"password.go", "> p.timeout {", "> p.timeout<<20 {"}}},
	{"TestForgeries", "the look at what was made up", []edit{{"session.go", "} else if t.forged() {", "} else if false {"}}},
	{"TestForgeries", "the pace of their look-ups", []edit{{"throttle.go", "return p.n <= maxForgeries", "return true"}}},
	{"TestStrangersHoldUpNobody", "the way of known sessions around bcrypt", []edit{
		{"session.go", "	if memory.id != 0 {\n", "	if false {\n"},
		{"memo.go", "if v.recall(key.memoKey).of(r) {", "if false {"}}},
	{"TestLostAnswers", "the memory that a try may have been done", []edit{{"retry.go", "			again = true\n", ""}}},
	{"TestLostAnswers", "the look for a session that was saved", []edit{{"store.go", "s.saved(ctx, r.selector); id != 0 || err != nil", "s.saved(ctx, r.selector); err != nil"}, {"store.go", "		if isError(err, erDuplicate) {\n			id,", "		if false {\n			id,"}}},
	{"TestLoginWithoutAnAnswer", "the failure of a login that may not be saved", []edit{{"store.go", "	if err != nil {\n		return 0, 0, err\n	}\n	if s.cfg.MaxSessions > 0 {", "	if s.cfg.MaxSessions > 0 {"}}},
	{"TestClientsThatLeave", "the end of what was begun", []edit{{"session.go", "m.store.insert(steadfast(r.Context())", "m.store.insert(r.Context()"}}},
	{"TestTimeout", "the deadline of a look-up alone", []edit{{"lookup.go", "ok || !l.prompt || !l.roomy()", "ok"}}},
	{"TestTimeout", "the deadline of a batch", []edit{{"lookup.go", "	b.ctx, b.end = context.WithTimeout(context.Background(), l.store.timeout)", "	b.ctx, b.end = context.WithCancel(context.Background())"}}},
	{"TestReplica", "the second look", []edit{{"session.go", "	late, ended := row, err\n", "	if late := row; late != nil || err != nil {\n		return late, err\n	}\n	late, ended := row, err\n"}}},
	{"TestThrottleOfAClockThatWentBack", "the look at the clock", []edit{{"throttle_mysql.go", "if since < -60 {", "if false {"}}},
	{"FuzzMiddleware", "the comparison of the verifier", []edit{{"token.go", "bcrypt.CompareHashAndPassword(hash, []byte(t.verifier)) == nil", `t.verifier != ""`}}},
	{"TestSessionsAndRevoke", "the owner of a session", []edit{{"store.go", `" WHERE user = ?" + condition`, `" WHERE (user = ? OR 1 = 1)" + condition`}, {"store.go", "|| !sameKey(owner, user) {", "|| owner == nil {"}}},
	{"TestDatabaseFailure", "the answer to a failure", []edit{{"middleware.go", "				m.unknown(w, r, err)\n				return\n", "				v.err = ErrUnknown\n"}}},
	{"TestReturnTo", "the look at the host", []edit{{"middleware.go", `strings.HasPrefix(target, "//") ||`, "false ||"}, {"middleware.go", `err == nil && u.Host == "" && !strings.Contains(u.Path, "//")`, "err == nil && u != nil"}}},
	{"TestRegisterBadFields", "the list of columns", []edit{{"account.go", "case !slices.Contains(options.Columns, name):", "case false:"}}},
	{"TestRegisterAtOnce", "the answer of the unique index", []edit{{"store.go", "	case isError(err, erDuplicate):\n		field,", "	case false:\n		field,"}}},
	{"TestSetPassword", "the end of other sessions", []edit{{"stamp.go", "		if len(ids) > 0 {", "		if false {"}}},
	{"TestSetPassword", "the old password", []edit{{"account.go", "	if m.passwords.usable(user.hash) {", "	if false {"}}},
	{"TestPasswordChangedDuringALogin", "the second look at the password", []edit{{"account.go", "	if bytes.Equal(user.hash, verified.hash) {", "	if true || bytes.Equal(nil, nil) {"}}},
	{"TestFresh", "the time of the login", []edit{{"middleware.go", "age <= seconds(within)", "age <= seconds(within)+1<<40"}}},
	{"TestMaxSessions", "the end of what is too many", []edit{{"store.go", "	if s.cfg.MaxSessions > 0 {\n		if ended", "	if false {\n		if ended"}}},
	{"TestSecretsAreNotPrinted", "the mask of a token", []edit{{"token.go", `func (token) String() string       { return "[session token]" }`, "func (t token) String() string     { return t.verifier }"}}},
	{"TestCases/A1_two_users_tables", "the realm", []edit{{"tokentable.go", `t.realm != "" && !strings.EqualFold(t.realm, realm)`, "false"}}},
	{"TestCases/A1_two_users_tables", "the names of defaults", []edit{{"config.go", "	if table == defaultTable {\n		return \"user_tokens\"", "	if true {\n		return \"user_tokens\""}}},
	{"TestCases/A2_next_owner_of_a_key", "the key to the letter", []edit{{"user.go", "	if !bytes.Equal(s.texts[textUser], key) {", "	if false {"}}},
	{"TestCases/A2_next_owner_of_a_key", "the end of sessions under a new user's key", []edit{{"account.go", "		if err != nil || len(ids) == 0 {", "		if true {"}}},
	{"TestCases/A3_key_changes_its_type", "the comparison of types", []edit{{"tokentable.go", "	return plain(a) == plain(b)", "	return plain(a) != \"\" || plain(b) != \"\""}}},
	{"TestCases/A4_password_changed_by_SQL", "the stamp", []edit{{"user.go", "		s.row.changed = !", "		s.row.changed = false && !"}}},
	{"TestCases/A4_password_changed_by_SQL", "the end of the row", []edit{{"session.go", "err = m.store.deleteRejected(ctx, &v.record)", "err = nil"}}},
	{"TestCases/A4_changes_that_keep_sessions", "the stamp after a rehash", []edit{{"session.go", "return m.store.restamp(ctx, tx, user.key, user.stamp, stamp)", "return nil"}}},
	{"TestCases/A5_set_password_without_the_old_one", "how the session began", []edit{{"account.go", "method != methodApp || ", "method == 9 || "}}},
	{"TestCases/A10_keys_the_column_cannot_hold", "the range of a column", []edit{{"store.go", "return n, c.holds(n), nil", "return n, true, nil"}}},
	{"TestCases/A11_keys_to_the_letter", "the comparison", []edit{{"account.go", "(len(accounts) != 1 || !sameKey(accounts[0].key, arg))", "len(accounts) != 1"}}},
	{"TestCases/A16_what_was_begun_is_finished", "the detached context", []edit{{"retry.go", "return context.WithoutCancel(ctx) }", "return ctx }"}}},
	{"TestCases/C11_session_ids", "the secret", []edit{{"stamp.go", "t != nil && t.secret != nil {", "t != nil && false {"}}},
	{"TestCases/A7_renewals_and_shared_caches", "the page that carries the cookie", []edit{{"middleware.go", "		m.cookies.write(w, v.token)\n		reload(w, r)\n		return true\n", "		m.cookies.write(w, v.token)\n"}}},
	{"TestCases/A8_pages_in_shared_caches", "private", []edit{{"middleware.go", "		private(w.Header())\n", ""}}},
	{"TestCases/A8_pages_in_shared_caches", "Vary", []edit{{"middleware.go", "	varyByCookie(w.Header())\n", ""}}},
	{"TestCases/A15_planted_candypack_cookies", "the look at another user's session", []edit{{"session.go", "v.err == nil && !m.cookies.incomplete(r, t)", "v.err == nil"}}},
	{"TestCases/A15_planted_candypack_cookies", "the memory of completions", []edit{{"candypack.go", "	if c.seen[selector] {", "	if false {"}}},
	{"TestCases/B1_links_of_other_sites", "the end of the hint", []edit{{"middleware.go", "// withheld, perhaps; without the hint this ends\n		m.cookies.clearHint(w)\n", "\n"}}},
	{"TestCases/B1_links_of_other_sites", "the way to keep strict", []edit{{"middleware.go", "m.cfg.NoReload == nil ||", "true ||"}}},
	{"TestCases/B1_the_page_that_reloads", "the escape of its URL", []edit{{"middleware.go", "html.EscapeString(target)", "target"}, {"middleware.go", "	\"html\"\n", ""}}},
	{"TestCases/B2_cookies_of_one_name", "the bound of tries", []edit{{"cookie.go", "len(others) == tries", "false && tries > 0"}}},
	{"TestCases/B2_cookies_of_one_name", "the alarms of cookies that another hides", []edit{{"session.go", "	if why.alarming() {\n		m.tell(r, why.kind, why.of, why.reason)\n	}\n	for", "	for"}}},
	{"TestCases/B2_logout_with_several_cookies", "the end of each session", []edit{{"session.go", "id != 0 && id != v.record.id {", "id != 0 && false {"}}},
	{"TestCases/B3_late_answers_of_renewals", "the cookie's rest in renewals", []edit{{"middleware.go", "renewed && m.cookies.lasting() &&", "renewed || m.cookies.lasting() &&"}, {"middleware.go", "		reload(w, r)\n		return true\n	case v.err == nil && !hinted", "	case v.err == nil && !hinted"}}},
	{"TestCases/B5_logins_of_one_browser", "the session that logins share", []edit{{"twins.go", "	if maxSessions == 0 {", "	if true {"}}},
	{"TestCases/B5_logins_that_share_nothing", "the look whether that has ended", []edit{{"session.go", "			return false, nil\n		}\n		return err == nil && row", "			return true, nil\n		}\n		return err == nil && row"}}},
	{"TestCases/B7_long_pages_in_next", "the bound of next", []edit{{"middleware.go", "len(next) > maxNext", "false"}}},
	{"TestCases/B14_cookies_outlive_rows", "the cookie of an old session", []edit{{"middleware.go", "	if renewed &&", "	if false &&"}}},
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
	{"TestCases/A6_pool_without_autocommit", "the look at the pool", []edit{{"setup.go", "	if s.sound.Load() {", "	if true {"}}},
	{"TestCases/A6_pool_of_open", "autocommit", []edit{{"open.go", `cfg.Params["autocommit"], cfg.Params["completion_type"] = "1", "0"`, `cfg.Params["completion_type"] = "0"`}}},
	{"TestCases/A9_each_request_its_own_user", "the copies of a user", []edit{{"user.go", "	if !p.shares {", "	if true {"}}},
	{"TestCases/A12_ended_here_after_elsewhere", "the end of an old token", []edit{{"cache.go", "ok && before != row.selector {", "ok && false {"}}},
	{"TestCases/A12_ended_here_after_elsewhere", "the end of what is gone elsewhere", []edit{{"user.go", "	if m.cache != nil {\n", "	if false {\n"}}},
	{"TestCases/A13_certain_of_the_row", "the look at the row", []edit{{"middleware.go", "if err != nil || !v.cached {", "if true {"}}},
	{"TestCases/A14_login_in_the_future", "the look at the future", []edit{{"middleware.go", "age >= -1 && ", ""}}},
	{"TestCases/B9_keys_that_are_not_unique", "the unique key", []edit{{"setup.go", "		if !unique {", "		if false {"}}},
	{"TestCases/B8_any_pool", "the columns by their places", []edit{{"setup.go", "	rows, err := db.QueryContext(ctx, query, args...)\n", "	if strings.HasPrefix(query, \"SHOW\") {\n		var named []struct {\n			Name  string         `db:\"Variable_name\"`\n			Value sql.NullString `db:\"Value\"`\n		}\n		err = db.SelectContext(ctx, &named, query, args...)\n		return nil, err\n	}\n	rows, err := db.QueryContext(ctx, query, args...)\n"}}},
	{"TestCases/B11_characters_that_are_missing", "the errors of characters", []edit{{"session.go", "if isError(err, unwritable...) {", "if false {"}, {"store.go", "if isError(err, unwritable...) {", "if false {"}}},
	{"TestCases/B12_login_urls_with_a_fragment", "the place of the fragment", []edit{{"middleware.go", "target, fragment, hasFragment := strings.Cut(target, \"#\")", "fragment, hasFragment := \"\", false"}}},
	{"TestCases/B13_compact_rows", "the index of a prefix", []edit{{"tokentable.go", "err = alter(add + \"(191))\")", "err = alter(add + \"(255))\")"}}},
	{"TestCases/B15_users_table_for_reading", "the right that is missing", []edit{{"setup.go", "right = strings.Trim(strings.ToUpper(right), \"'\")", "right = \"\""}}},
	{"TestCases/C3_unread_addresses", "the network of what cannot be read", []edit{{"throttle.go", "\"text\", text)\n		}\n		return nil", "\"text\", text)\n		}\n		return []string{text}"}}},
	{"TestCases/C5_flood_of_registrations", "the look for taken values", []edit{{"account.go", "if field, err := m.store.taken(ctx, columns, args); err == nil && field != \"\" {", "if field := \"\"; field != \"\" {"}}},
	{"TestCases/C8_too_many_at_one_time", "the error of its own", []edit{{"memo.go", "			err = ErrBusy\n", "			err = context.DeadlineExceeded\n"}}},
	{"TestCases/C9_panic_in_scan", "the guard of a Scan method", []edit{{"user.go", "guarded(reflectx.FieldByIndexes(v, index).Addr())", "reflectx.FieldByIndexes(v, index).Addr().Interface()"}}},
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
