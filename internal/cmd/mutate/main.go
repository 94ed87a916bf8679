// Command mutate removes each defence that SECURITY.md lists, and checks that
// the test which the page names then fails. It changes no file, but passes the
// changed text to the compiler in an overlay.
//
//	go run ./internal/cmd/mutate              # all mutations
//	go run ./internal/cmd/mutate TestExpiry   # the mutations of one test
//
// All mutations take about eight minutes, because some tests then only end by
// their timeout.
package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A mutation changes pieces of the library's source, each of which occurs once.
type mutation struct {
	test    string
	removes string // the defence
	edits   []edit
}

// An edit replaces text. Its file is only named where other files have the
// same text.
type edit struct{ file, old, new string }

var mutations = []mutation{
	{"TestTokens", "randomness", []edit{{"", "rand.Read(random) ", "rand.Read(random[:0]) "}}},
	{"TestVerifierRemembers", "the hash of a remembered token", []edit{{"", "string(e.hash[:])", `""`}}},
	{"TestRejections", "the comparison of the verifier", []edit{{"", "bcrypt.CompareHashAndPassword([]byte(hash), []byte(t.Verifier)) == nil", `t.Verifier != ""`}}},
	{"TestLogoutRevokesToken", "the deletion of the row", []edit{{"", `"end the session", "DELETE FROM "+s.tokensName+" WHERE id = ?"`, `"end the session", "DELETE FROM "+s.tokensName+" WHERE id = ? AND 1 = 0"`}}},
	{"TestRevocationIsExactUnderLoad", "the lookup of the row on each request", []edit{
		{"", "newCache[U](cfg.Cache)", "newCache[U](Cache{Fresh: time.Hour, Entries: 1000})"},
		{"", "	storeConfig.Changed = m.cache.forget\n", ""},
		{"", "	if m.cache != nil {\n", "	if false {\n"},
		{"", "since <= m.cfg.Cache.Fresh", "since <= time.Hour"}}},
	{"TestRenewalNeverRevivesARow", "the row count of a renewal", []edit{{"", "browser, id, seconds(age))\n	return n == 1 ||", "browser, id, seconds(age))\n	return n >= 0 ||"}}},
	{"TestFamily", "the comparison of browsers", []edit{{"", "		return a == b\n", "		return true\n"}}},
	{"TestExpiry", "the idle timeout", []edit{{"", "return r.Now-r.Active > m.idleTimeout(r) ||", "return false ||"}}},
	{"TestExpiry", "the absolute timeout", []edit{{"", "m.cfg.MaxLifetime > 0 && r.Now", "false && r.Now"}}},
	{"TestCookies", "HttpOnly", []edit{{"", "HttpOnly: true", "HttpOnly: false"}}},
	{"TestCookies", "Secure", []edit{{"", "Secure:   !c.Cookie.Insecure", "Secure:   false"}}},
	{"TestCookies", "SameSite", []edit{{"", "SameSite: c.Cookie.SameSite", "SameSite: http.SameSiteLaxMode"}}},
	{"TestLoginReplacesTheSessionOfTheBrowser", "the deletion of the previous session", []edit{{"", "&v.record, before.record.ID)", "&v.record, 0*before.record.ID)"}}},
	{"TestGuessingIsSlowedDown", "the limit of an account", []edit{{"", "FreeFailures: 5, ", "FreeFailures: 5000, "}}},
	{"TestSprayingIsSlowedDown", "the limit of an address", []edit{{"", "FreeFailures: 50, BaseDelay: time.Second, MaxDelay: time.Minute", "FreeFailures: 5000, BaseDelay: time.Second, MaxDelay: time.Minute"}}},
	{"TestThrottleConcurrent", "counting before trying", []edit{{"", "	if p.count > 0 && f.count+p.count >= limit.FreeFailures {", "	if false {"}}},
	{"TestGuessingIsSlowedDown", "the count of each network", []edit{{"", "throttleKey(\"account\", identifier, smallest(networks))", `throttleKey("account", identifier)`}}},
	{"TestInvalidCredentials", "one error for all", []edit{{"", "		m.emit(r, EventLoginFailed, &store.Record{Owner: user.Key}, nil)\n", "		if user.Key == nil {\n			return ErrUserNotFound\n		}\n"}}},
	{"TestRejectedLoginsDoTheSameWork", "the work for a missing user", []edit{{"", "	h.matchesBcrypt(dummy(highest), highest, password)", "	_ = highest"}}},
	{"TestRejectedLoginsDoTheSameWork", "the work for hashes of lower cost", []edit{{"", "		h.equalize(cost, form)\n", "		_ = form\n"}}},
	{"TestInvalidCredentials", "hashing the password", []edit{{"", "		if h.matchesBcrypt(unpadded(hash), cost, form) {", "		if string(hash) == form || h.matchesBcrypt(unpadded(hash), cost, form) {"}}},
	{"TestOpenKeepsTheCharset", "the charset", []edit{{"", "	cfg.Apply(mysql.Charset(\"utf8mb4\", cfg.Collation))", "	_ = mysql.Charset"}}},
	{"TestInvalidCredentials", "exact integers", []edit{{"", "strconv.FormatInt(n, 10) == converted {", "true {"}, {"", "	n, err := strconv.ParseUint(converted, 10, 64)\n	ok = err == nil &&", "	n, err := strconv.ParseUint(converted, 10, 64)\n	if err != nil {\n		return converted, true, nil\n	}\n	ok = err == nil &&"}}},
	{"TestRejectedLoginsDoTheSameWork", "the limit of a hash's cost", []edit{{"", "return cost <= MaxCost", "return cost <= 99"}}},
	{"TestCases/C7_texts_that_look_like_bcrypt", "the grammar of bcrypt hashes", []edit{{"", "if !bcryptGrammar.Match(hash) {", "if false {"}}},
	{"TestCases/C6_a_turn_within_the_timeout", "the timeout of the queue", []edit{{"internal/password/queue.go", "		timedOut = timer.C\n", ""}}},
	{"TestCases/C10_hashes_of_another_library", "the work of other hashes", []edit{{"", "		h.legacy(slowest.text, form)\n", "		_ = form\n"}}},
	{"TestCases/C10_bcrypt_of_other_costs", "the sample of hashes", []edit{{"", "	h.learn(ctx)\n", ""}}},
	{"TestCases/B10_forms_of_a_password", "normalization", []edit{{"", "	return norm.NFC.String(password)", "	return password"}}},
	{"TestCases/B10_forms_of_a_password", "the forms of older hashes", []edit{{"", "		forms = append(forms, nfd)\n", "		_ = nfd\n"}}},
	{"TestCases/B6_media_players", "the device of a media player", []edit{{"", `		return strings.Contains(stored, "("+m[1]+";") ||`, "		return true ||"}}},
	{"TestCases/B6_media_players", "the browser that stays stored", []edit{{"", "lasting(v.record.Browser, m.browser(r))", "m.browser(r)"}}},
	{"TestCases/B6_one_browser_in_other_words", "the removal of network names", []edit{{"", "	userAgent = networkName.ReplaceAllString(userAgent, \"$1$2\")\n", ""}}},
	{"TestWrongVerifiersForOneSession", "the slot of a row", []edit{{"internal/token/slots.go", "make(chan struct{}, 1)}", "make(chan struct{}, 1000)}"}}},
	{"TestWrongVerifiersForManySessions", "the slots of attacked rows", []edit{{"", "s.isAttacked(hash) && !take(s.attacked) ||", ""}}},
	{"TestCases/C9_OnEvent_panics", "the recovery from a panic", []edit{{"", "reason := recover(); reason != nil", "reason := any(nil); reason != nil"}}},
	{"TestLoginsAreBounded", "the bound of the queue", []edit{{"", "> q.timeout {", "> q.timeout<<20 {"}}},
	{"TestForgedTokens", "the check for forged tokens", []edit{{"", "} else if t.IsForged() {", "} else if false {"}}},
	{"TestForgedTokens", "the limit of warnings", []edit{{"", "return l.n <= maxWarnings", "return true"}}},
	{"TestUnknownTokensDoNotBlockKnownOnes", "the memo", []edit{
		{"", "	if entry.ID != 0 {\n", "	if false {\n"},
		{"", "if v.Get(key).Matches(row) {\n		return true, nil\n", "if false {\n		return true, nil\n"},
		{"", "if v.Get(key).Matches(row) {\n		return true, nil //", "if false {\n		return true, nil //"}}},
	{"TestRetryAfterLostResponse", "the note that a try may have run", []edit{{"internal/retry/retry.go", "			mayHaveRun = true\n", ""}}},
	{"TestRetryAfterLostResponse", "the search for an inserted session", []edit{{"", "s.findInserted(ctx, r.Selector); id != 0 || err != nil", "s.findInserted(ctx, r.Selector); err != nil"}, {"", "		if retry.HasNumber(err, erDupEntry) {\n			id,", "		if retry.HasNumber(err) {\n			id,"}}},
	{"TestLoginUnknownOutcome", "the error of an unknown outcome", []edit{{"", "	if err != nil {\n		return 0, 0, err\n	}\n	if s.cfg.MaxSessions > 0 {", "	if s.cfg.MaxSessions > 0 {"}}},
	{"TestClientDisconnect", "the end of a write that has begun", []edit{{"", "m.store.Insert(detach(r.Context())", "m.store.Insert(r.Context()"}}},
	{"TestTimeout", "the deadline of a direct lookup", []edit{{"", "hasDeadline || l.TimesOut == nil || !l.TimesOut()", "hasDeadline"}}},
	{"TestTimeout", "the deadline of a batch", []edit{{"", "	b.ctx, b.cancel = context.WithTimeout(context.Background(), timeout)", "	b.ctx, b.cancel = context.WithCancel(context.Background())"}}},
	{"TestReplica", "the lookup on the primary", []edit{{"", "	staleRow, staleErr := row, err\n", "	if row != nil || err != nil {\n		return row, err\n	}\n	staleRow, staleErr := row, err\n"}}},
	{"TestThrottleWhenTheClockGoesBack", "the check of the clock", []edit{{"", "if since < -60 {", "if false {"}}},
	{"FuzzMiddleware", "the comparison of the verifier", []edit{{"", "bcrypt.CompareHashAndPassword([]byte(hash), []byte(t.Verifier)) == nil", `t.Verifier != ""`}}},
	{"TestSessionsAndRevoke", "the owner of a session", []edit{{"", `" WHERE user = ?"+condition`, `" WHERE (user = ? OR 1 = 1)"+condition`}, {"", "|| !SameKey(owner, user)", "|| owner == nil"}}},
	{"TestDatabaseFailure", "the response to a failure", []edit{{"", "				m.fail(w, r, err)\n				return\n", "				s = &stateContext[U]{Context: r.Context(), manager: m}\n				s.first.err = ErrUnknownSession\n				s.verdict.Store(&s.first)\n"}}},
	{"TestReturnTo", "the check of the host", []edit{{"", `strings.HasPrefix(target, "//") ||`, "false ||"}, {"", `err == nil && u.Host == "" && !strings.Contains(u.Path, "//")`, "err == nil && u != nil"}}},
	{"TestRegisterBadFields", "the list of columns", []edit{{"", "o.columns != nil && !slices.Contains(o.columns, name)", "false"}}},
	{"TestRegisterConcurrently", "the error of the unique index", []edit{{"", "	case retry.HasNumber(err, erDupEntry):\n		columns,", "	case false:\n		columns,"}}},
	{"TestSetPassword", "the deletion of other sessions", []edit{{"", "		if len(ids) > 0 {", "		if false {"}}},
	{"TestSetPassword", "the old password", []edit{{"", "	if m.passwords.Usable(user.Hash) {", "	if false {"}}},
	{"TestPasswordChangedDuringALogin", "the second check of the password", []edit{{"", "	if bytes.Equal(user.Hash, verified.Hash) {", "	if true || bytes.Equal(nil, nil) {"}}},
	{"TestFresh", "the time of the login", []edit{{"", "age <= seconds(within)", "age <= seconds(within)+1<<40"}}},
	{"TestMaxSessions", "the end of the oldest sessions", []edit{{"", "	if s.cfg.MaxSessions > 0 {\n		if ended", "	if false {\n		if ended"}}},
	{"TestSecretsAreNotPrinted", "the mask of a token", []edit{{"", `func (Token) String() string { return "[session token]" }`, "func (t Token) String() string { return t.Verifier }"}}},
	{"TestCases/A1_two_users_tables", "the realm", []edit{{"", `t.realm != "" && !strings.EqualFold(t.realm, realm)`, "false"}}},
	{"TestCases/A1_two_users_tables", "the names of defaults", []edit{{"", "	if table == defaultTable {\n		return \"user_tokens\"", "	if true {\n		return \"user_tokens\""}}},
	{"TestCases/A2_next_owner_of_a_key", "the comparison of the key's bytes", []edit{{"", "	if !bytes.Equal(s.raw.user, key) {", "	if false {"}}},
	{"TestCases/A2_next_owner_of_a_key", "the deletion of sessions under a new user's key", []edit{{"internal/store/account.go", "		if err != nil || len(ids) == 0 {", "		if true {"}}},
	{"TestCases/A3_key_changes_its_type", "the comparison of types", []edit{{"", "	return plain(a) == plain(b)", "	return plain(a) != \"\" || plain(b) != \"\""}}},
	{"TestCases/A4_password_changed_by_SQL", "the stamp", []edit{{"", "		s.row.Changed = !", "		s.row.Changed = false && !"}}},
	{"TestCases/A4_password_changed_by_SQL", "the deletion of a rejected row", []edit{{"", "err = m.store.DeleteRejected(detach(ctx), &v.record)", "err = nil"}}},
	{"TestCases/A4_changes_that_keep_sessions", "the stamp after a rehash", []edit{{"", "return s.replaceStamp(ctx, tx, key, oldStamp, stamp)", "return nil"}}},
	{"TestCases/A5_set_password_without_the_old_one", "how the session began", []edit{{"", "method != store.MethodApp || ", "method == 9 || "}}},
	{"TestCases/A10_keys_the_column_cannot_hold", "the range of a column", []edit{{"", "return n, c.holds(n), nil", "return n, true, nil"}}},
	{"TestCases/A11_keys_to_the_letter", "the comparison", []edit{{"", "(len(accounts) != 1 || !store.SameKey(accounts[0].Key, arg))", "len(accounts) != 1"}}},
	{"TestCases/A16_what_was_begun_is_finished", "the detached context", []edit{{"", "return context.WithoutCancel(ctx) }", "return ctx }"}}},
	{"TestCases/C11_session_ids", "the secret", []edit{{"", "t != nil && t.secret != nil {", "t != nil && false {"}}},
	{"TestCases/A7_renewals_and_shared_caches", "the page that carries the cookie", []edit{{"", "				m.cookies.write(w, v.token, transient)\n				reload(w, r)\n				return true\n", "				m.cookies.write(w, v.token, transient)\n"}}},
	{"TestCases/A8_pages_in_shared_caches", "private", []edit{{"", "		private(w.Header())\n", ""}}},
	{"TestCases/A8_pages_in_shared_caches", "Vary", []edit{{"", "	varyByCookie(w.Header())\n", ""}}},
	{"TestCases/A15_planted_candypack_cookies", "the comparison with another user's session", []edit{{"", "v.err == nil && !m.cookies.lacksOwn(r, t)", "v.err == nil"}}},
	{"TestCases/A15_planted_candypack_cookies", "the memory of completions", []edit{{"", "	if c.seen[selector] {", "	if false {"}}},
	{"TestCases/B1_links_of_other_sites", "the removal of the hint", []edit{{"", "			// request is not reloaded.\n			m.cookies.clearHint(w)\n", ""}}},
	{"TestCases/B1_links_of_other_sites", "NoReload", []edit{{"", "m.cfg.Cookie.NoReload == nil ||", "true ||"}}},
	{"TestCases/B1_the_page_that_reloads", "the escaping of its URL", []edit{{"", "html.EscapeString(target)", "target"}, {"", "	\"html\"\n", ""}}},
	{"TestCases/B2_cookies_of_one_name", "the bound of tries", []edit{{"", "len(others) == tries", "false && tries > 0"}}},
	{"TestCases/B2_cookies_of_one_name", "the alarms of other cookies", []edit{{"", "	m.emitAlarm(r, first)\n", ""}}},
	{"TestCases/B2_logout_with_several_cookies", "the deletion of each session", []edit{{"", "id != 0 && id != v.record.ID {", "id != 0 && false {"}}},
	{"TestCases/B3_late_answers_of_renewals", "the condition for a new cookie", []edit{{"", "renewed && m.cookies.isPersistent() &&", "renewed || m.cookies.isPersistent() &&"}, {"", "				m.cookies.write(w, v.token, transient)\n				reload(w, r)\n				return true\n", "				m.cookies.write(w, v.token, transient)\n"}}},
	{"TestCases/B5_logins_of_one_browser", "the session that logins share", []edit{{"", "	if maxSessions == 0 {", "	if true {"}}},
	{"TestCases/B5_logins_that_share_nothing", "the check whether that has ended", []edit{{"", "			return false, nil\n		}\n		return err == nil && row", "			return true, nil\n		}\n		return err == nil && row"}}},
	{"TestCases/B7_long_pages_in_next", "the bound of next", []edit{{"", "len(next) > maxNext", "false"}}},
	{"TestCases/B14_cookies_outlive_rows", "the cookie of an old session", []edit{{"", "	if renewed &&", "	if false &&"}}},
	{"TestLinksOfOtherSites", "no-store", []edit{{"", `header.Set("Cache-Control", "no-store")`, `header.Set("Cache-Control", "private")`}}},
	{"TestMySQLThrottleSecret", "the secret", []edit{{"", "	if t.secret != nil {\n		h =", "	if false {\n		h ="}}},
	{"TestCases/B4_right_logins_at_once", "the release of a reservation", []edit{{"", "	case Failed:\n		f, _", "	default:\n		f, _"}, {"", "	case Succeeded:\n		t.counts", "	case 99:\n		t.counts"}}},
	{"TestCases/B4_guesses_at_once_of_several_servers", "the attempts in progress", []edit{{"", "failed + pending < ?", "failed < ?"}}},
	{"TestCases/B4_attempts_that_end_otherwise", "the release of an attempt that was not verified", []edit{{"", "		attempt.canceled(r.Context())\n		return err\n", "		return err\n"}}},
	{"TestCases/B4_attempts_that_end_otherwise", "the release after a panic", []edit{{"", "	defer attempt.failed(r.Context()) // unless", "	// unless"}}},
	{"TestCases/C1_spellings_of_one_account", "the weights", []edit{{"", "if err != nil || weight == nil {", "if true {"}}},
	{"TestCases/C1_spellings_of_one_account", "the trailing spaces", []edit{{"", "for len(space) > 0 && ", "for false && "}}},
	{"TestCases/C1_spellings_in_other_columns", "the count of values that a column can't hold", []edit{{"", "arg = credentials[name] // for the throttle", "arg = new(int)"}}},
	{"TestCases/C2_networks_of_IPv6", "the /56 and the /48", []edit{{"", "[]int{64, 56, 48}", "[]int{64}"}}},
	{"TestCases/C2_one_account_from_everywhere", "the limit from everywhere", []edit{{"", "FreeFailures: 100,", "FreeFailures: 5000,"}}},
	{"TestCases/C2_one_account_from_everywhere", "the user's key", []edit{{"", "		account = accountName(user)\n", ""}}},
	{"TestCases/C2_one_account_from_everywhere", "the check of the browser", []edit{{"throttle.go", " && m.cfg.Fingerprint.Match(v.record.Browser, m.browser(r)):", ":"}}},
	{"TestCases/C3_forms_of_an_address", "the last address of a list", []edit{{"", "	text = text[strings.LastIndexByte(text, ',')+1:]\n", "	text, _, _ = strings.Cut(text, \",\")\n"}}},
	{"TestCases/C3_unread_addresses", "the count of an account at no address", []edit{{"", "smallest(networks)),", "smallest(append(networks, fmt.Sprint(time.Now())))),"}}},
	{"TestCases/C4_colleague_of_a_guesser", "the count of a known client", []edit{{"", "	if own != \"\" {", "	if false {"}}},
	{"TestCases/C5_flood_of_registrations", "the count of values that were taken", []edit{{"", "		attempt.failed(r.Context())\n	}\n	if err", "	}\n	if err"}}},
	{"TestCases/C5_places_of_a_network", "the places", []edit{{"", "make(chan struct{}, 4*max", "make(chan struct{}, 4000*max"}}},
	{"TestCases/A6_pool_without_autocommit", "the check of the pool", []edit{{"", "	if s.poolChecked.Load() {", "	if true {"}}},
	{"TestCases/A6_pool_of_open", "autocommit", []edit{{"", `cfg.Params["autocommit"], cfg.Params["completion_type"] = "1", "0"`, `cfg.Params["completion_type"] = "0"`}}},
	{"TestCases/A9_each_request_its_own_user", "the copies of a user", []edit{{"", "	if !m.shares {", "	if true {"}}},
	{"TestCases/A12_ended_here_after_elsewhere", "the eviction of an old token", []edit{{"", "ok && before != row.Selector {", "ok && false {"}}},
	{"TestCases/A12_ended_here_after_elsewhere", "the end of sessions that ended elsewhere", []edit{{"", "	if m.cache != nil {\n", "	if false {\n"}}},
	{"TestCases/A13_certain_of_the_row", "the lookup of the row", []edit{{"", "if err != nil || !v.cached {", "if true {"}}},
	{"TestCases/A14_login_in_the_future", "the check for future times", []edit{{"", "age >= -1 && ", ""}}},
	{"TestCases/B9_keys_that_are_not_unique", "the unique key", []edit{{"", "		if !unique {", "		if false && !unique {"}}},
	{"TestCases/B8_any_pool", "the columns by position", []edit{{"", "	rows, err := db.QueryContext(ctx, query, args...)\n", "	if strings.HasPrefix(query, \"SHOW\") {\n		var named []struct {\n			Name  string         `db:\"Variable_name\"`\n			Value sql.NullString `db:\"Value\"`\n		}\n		err = db.SelectContext(ctx, &named, query, args...)\n		return nil, err\n	}\n	rows, err := db.QueryContext(ctx, query, args...)\n"}}},
	{"TestCases/B11_characters_that_are_missing", "the errors of characters", []edit{{"login.go", "if store.IsUnwritable(err) {", "if false {"}, {"", "	case retry.HasNumber(err, unwritable...):", "	case false:"}}},
	{"TestCases/B12_login_urls_with_a_fragment", "the place of the fragment", []edit{{"", "target, fragment, hasFragment := strings.Cut(target, \"#\")", "fragment, hasFragment := \"\", false"}}},
	{"TestCases/B13_compact_rows", "the index of a prefix", []edit{{"", "err = m.alter(ctx, add+\"(191))\")", "err = m.alter(ctx, add+\"(255))\")"}}},
	{"TestCases/B15_users_table_for_reading", "the right that is missing", []edit{{"", "right = strings.Trim(strings.ToUpper(right), \"'\")", "right = \"\""}}},
	{"TestCases/C3_unread_addresses", "the network of what cannot be read", []edit{{"", "\"text\", text)\n		}\n		return nil", "\"text\", text)\n		}\n		return []string{text}"}}},
	{"TestCases/C5_flood_of_registrations", "the look for taken values", []edit{{"", "if duplicate, err := m.store.DuplicateColumns(ctx, columns, args); err == nil && duplicate != nil {", "if duplicate := []string(nil); duplicate != nil {"}}},
	{"TestCases/C8_too_many_at_one_time", "the error of its own", []edit{{"", "			err = ErrBusy\n", "			err = context.DeadlineExceeded\n"}}},
	{"TestCases/C9_panic_in_scan", "the guard of a Scan method", []edit{{"", "guarded(reflectx.FieldByIndexes(v, index).Addr())", "reflectx.FieldByIndexes(v, index).Addr().Interface()"}}},
}

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		log.Fatal(err)
	}
	library, err := readLibrary(".")
	if err != nil {
		log.Fatal(err)
	}
	notCaught := 0
	for _, m := range mutations {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], m.test) {
			continue
		}
		result := m.run(library, dir)
		if result != "caught" {
			notCaught++
		}
		fmt.Printf("%-10s  %-42s without %s\n", result, m.test, m.removes)
	}
	os.RemoveAll(dir)
	if notCaught > 0 {
		log.Fatalf("%d were not caught", notCaught)
	}
	fmt.Println("all were caught")
}

// run applies the mutation and runs its test. It returns "caught" if the test
// fails, and otherwise the problem.
func (m mutation) run(library *library, dir string) string {
	sources, err := library.edited(m.edits)
	if err != nil {
		return err.Error()
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range sources {
		changed := filepath.Join(dir, strings.ReplaceAll(path, string(filepath.Separator), "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			log.Fatal(err)
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			log.Fatal(err)
		}
		overlay.Replace[absolute] = changed
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		log.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		log.Fatal(err)
	}
	name, _, _ := strings.Cut(m.test, "/")
	out, err := exec.Command("go", "test", "-count=1", "-timeout=60s", "-overlay="+file, "-run=^"+strings.Replace(m.test, "/", "$/^", 1)+"$", "./"+library.tests[name]).CombinedOutput()
	switch {
	case strings.Contains(string(out), "[build failed]"):
		return "does not build: " + string(out)
	case err == nil || strings.Contains(string(out), "no tests to run"):
		return "not caught"
	}
	return "caught"
}

// A library is the source of the module in the working directory.
type library struct {
	files map[string]string // the text by path
	tests map[string]string // the directory of each test
}

// readLibrary reads the module in a directory, without the nested modules.
func readLibrary(root string) (*library, error) {
	l := &library{map[string]string{}, map[string]string{}}
	return l, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == ".git" || name == "examples" || name == "bench" || name == filepath.Join("internal", "cmd") || name == filepath.Join("internal", "faults") || name == filepath.Join("internal", "browsers")):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(name, "_test.go") {
			l.files[name] = string(text)
			return nil
		}
		for _, test := range testName.FindAllStringSubmatch(string(text), -1) {
			l.tests[test[1]] = filepath.Dir(name)
		}
		return nil
	})
}

var testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// edited returns the files that the edits change, with their new text.
func (l *library) edited(edits []edit) (map[string]string, error) {
	changed := map[string]string{}
	for _, e := range edits {
		in, times := "", 0
		for name, text := range l.files {
			if edited, ok := changed[name]; ok {
				text = edited
			}
			if n := strings.Count(text, e.old); n > 0 && (e.file == "" || e.file == name) {
				in = name
				times += n
			}
		}
		if times != 1 {
			return nil, fmt.Errorf("appears %d times: %s %q", times, e.file, e.old)
		}
		if _, ok := changed[in]; !ok {
			changed[in] = l.files[in]
		}
		changed[in] = strings.Replace(changed[in], e.old, e.new, 1)
	}
	return changed, nil
}
