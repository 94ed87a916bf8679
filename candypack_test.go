package session

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

// A recording holds responses of CandyPack 0.9.0, from testdata/candypack.
type recording struct {
	CapturedAt time.Time `json:"captured_at"`
	Sessions   []struct {
		Name      string
		SessionID int64  `json:"session_id"`
		UserAgent string `json:"user_agent"`
		CandyX    string `json:"candy_x"`
		CandyY    string `json:"candy_y"`
		Probes    []struct {
			Probe        string
			UserAgent    *string `json:"user_agent"`
			CookieHeader *string `json:"cookie_header"`
			Check        *bool
			UserID       *int64 `json:"user_id"`
			RowEffect    string `json:"row_effect"`
		}
	}
	LoginProbes []struct {
		Probe         string
		Where         map[string]any
		MatchedUserID json.RawMessage `json:"matched_user_id"`
	} `json:"login_probes"`
}

func readRecording(t testing.TB) (r recording) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "candypack", "sessions.json"))
	noError(t, err)
	noError(t, json.Unmarshal(data, &r))
	return r
}

// stricterChecks holds probes that CandyPack accepted and this package rejects:
// a User-Agent or selector that only its collation considers equal, JSON in a
// cookie, a deleted user.
var stricterChecks = map[string]error{
	"s1 ua_upper_cased": ErrFingerprintMismatch, "s2 ua_upper_cased": ErrFingerprintMismatch, "s3 ua_upper_cased": ErrFingerprintMismatch,
	"s5 ua_upper_cased": ErrFingerprintMismatch, "s6 ua_upper_cased": ErrFingerprintMismatch,
	"s1 x_upper_cased": ErrUnknownSession, "s2 x_upper_cased": ErrUnknownSession, "s3 x_upper_cased": ErrUnknownSession, "s5 x_upper_cased": ErrUnknownSession,
	"s6 x_upper_cased": ErrUnknownSession, "s7 x_upper_cased": ErrUnknownSession,
	"s1 x_json_object": ErrMalformedCookie, "s2 x_json_object": ErrMalformedCookie, "s3 x_json_object": ErrMalformedCookie, "s5 x_json_object": ErrMalformedCookie,
	"s6 x_json_object": ErrMalformedCookie, "s7 x_json_object": ErrMalformedCookie,
	"s8 right": ErrUserNotFound, "s8 ua_upper_cased": ErrUserNotFound, "s8 ua_trailing_spaces": ErrUserNotFound, "s8 x_upper_cased": ErrUnknownSession,
	"s8 y_equals_suffix": ErrUserNotFound, "s8 x_equals_suffix": ErrUserNotFound, "s8 x_trailing_spaces": ErrUserNotFound, "s8 x_json_object": ErrMalformedCookie,
	"s8 swapped_order": ErrUserNotFound, "s8 x_twice_good_first": ErrUserNotFound,
}

// stricterEffects holds probes for which CandyPack deleted an expired session.
// This package leaves the row to the session's own browser.
var stricterEffects = map[string]bool{"s4 ua_upper_cased": true, "s4 x_upper_cased": true, "s4 x_json_object": true}

// stricterLogins holds logins that CandyPack accepted and this package rejects.
// Here all credentials must match, and the password is always compared with
// bcrypt.
var stricterLogins = map[string]error{
	"unknown e-mail, password = alice's stored bcrypt string": ErrInvalidCredentials,
	"alice, password = bob's stored bcrypt string":            ErrInvalidCredentials,
	"e-mail = JSON number 0":                                  ErrInvalidCredentials,
	"e-mail only":                                             ErrInvalidCredentials,
	"e-mail + wrong name":                                     ErrInvalidCredentials,
}

type candyUser struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// candyTables creates CandyPack's tables with the recorded rows. A statement is
// a line, because strings contain semicolons.
func candyTables(t testing.TB, db *sqlx.DB, edit ...string) {
	t.Helper()
	schema, err := os.ReadFile(filepath.Join("testdata", "candypack", "schema.sql"))
	noError(t, err)
	text := regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(string(schema), "")
	for statement := range strings.SplitSeq(strings.NewReplacer(edit...).Replace(text), ";") {
		if strings.TrimSpace(statement) != "" {
			mustExec(t, db, statement)
		}
	}
	candyRows(t, db)
}

func candyRows(t testing.TB, db *sqlx.DB) {
	t.Helper()
	rows, err := os.ReadFile(filepath.Join("testdata", "candypack", "rows.sql"))
	noError(t, err)
	conn, err := db.Connx(t.Context()) // SET statements apply to this connection
	noError(t, err)
	defer conn.Close()
	var zone, mode string
	noError(t, conn.QueryRowContext(t.Context(), "SELECT @@time_zone, @@sql_mode").Scan(&zone, &mode))
	for line := range strings.Lines(string(rows)) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		if line == "" || strings.HasPrefix(line, "--") || strings.HasPrefix(line, "SET NAMES") {
			continue
		}
		_, err := conn.ExecContext(t.Context(), line)
		noError(t, err)
	}
	_, err = conn.ExecContext(t.Context(), "SET time_zone = '"+zone+"'")
	noError(t, err)
}

// at returns the DSN parameter that stops the connection's clock at the time of
// the recording.
func (r recording) at() string { return fmt.Sprint("timestamp=", r.CapturedAt.Unix()) }

// replay sends the recorded requests to a Manager, and compares the responses.
func (r recording) replay(t *testing.T, db *sqlx.DB) {
	t.Helper()
	f := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare})
	state := func(id int64) string {
		var rows []string
		noError(t, db.Select(&rows, "SELECT CONCAT_WS('|', user, token_x, token_y, browser, ip, UNIX_TIMESTAMP(date), UNIX_TIMESTAMP(active)) FROM candy_auth WHERE id = ?", id))
		return strings.Join(rows, "")
	}
	accepted, n := 0, 0
	for _, s := range r.Sessions {
		untouched := state(s.SessionID)
		for _, probe := range s.Probes {
			n++
			name := s.Name + " " + probe.Probe
			request := httptest.NewRequest("GET", "/", nil)
			if probe.UserAgent != nil {
				// net/http trims header values.
				request.Header.Set("User-Agent", strings.TrimSpace(*probe.UserAgent))
			}
			if probe.CookieHeader != nil {
				request.Header.Set("Cookie", *probe.CookieHeader)
			}
			var why error
			var id int64
			f.auth.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				why = f.auth.Err(r)
				u, _ := f.auth.User(r)
				id = u.ID
			})).ServeHTTP(httptest.NewRecorder(), request)

			stricter, isStricter := stricterChecks[name]
			switch accepts := probe.Check != nil && *probe.Check; {
			case isStricter && !accepts:
				t.Errorf("%s: CandyPack rejects it too", name)
			case isStricter && why != stricter:
				t.Errorf("%s: %v, want %v", name, why, stricter)
			case !isStricter && accepts != (why == nil):
				t.Errorf("%s: CandyPack accepts: %v, here: %v", name, accepts, why)
			case !isStricter && accepts && id != *probe.UserID:
				t.Errorf("%s: user %d, want %d", name, id, *probe.UserID)
			case why == nil:
				accepted++
			}
			effect := "unchanged"
			switch now := state(s.SessionID); {
			case now == untouched:
			case now == "":
				effect = "row_deleted"
			case now == strings.TrimSuffix(untouched, untouched[strings.LastIndexByte(untouched, '|'):])+"|"+fmt.Sprint(r.CapturedAt.Unix()):
				effect = "active_refreshed"
			default:
				effect = "changed to " + now
			}
			if want := probe.RowEffect; effect != want && !(effect == "unchanged" && (isStricter || stricterEffects[name])) {
				t.Errorf("%s: the row is %s, with CandyPack it is %s", name, effect, want)
			}
			if effect != "unchanged" {
				mustExec(t, db, "DELETE FROM candy_auth")
				mustExec(t, db, "DELETE FROM users")
				candyRows(t, db)
			}
		}
	}
	if n != 280 || accepted != 42 {
		t.Errorf("%d probes, %d accepted", n, accepted)
	}

	for _, probe := range r.LoginProbes {
		credentials := Credentials{}
		for column, value := range probe.Where {
			credentials[column] = fmt.Sprint(value)
		}
		u, err := logIn(f.auth, httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), credentials)
		var want int64
		json.Unmarshal(probe.MatchedUserID, &want)
		stricter, isStricter := stricterLogins[probe.Probe]
		switch {
		case isStricter:
			wantError(t, err, stricter)
		case want == 0:
			wantError(t, err, ErrInvalidCredentials)
		case err != nil || u.ID != want:
			t.Errorf("login, %s: user %d, %v, want %d", probe.Probe, u.ID, err, want)
		}
	}
	if len(r.LoginProbes) != 15 {
		t.Errorf("%d logins", len(r.LoginProbes))
	}
}

func TestRecordedSessions(t *testing.T) {
	t.Parallel()
	r := readRecording(t)
	// Every pair of settings occurs in one of these.
	for i, setting := range []struct{ zone, parseTime, sqlMode, collation string }{
		{"%2B00:00", "true", "STRICT_TRANS_TABLES", "utf8mb4_general_ci"},
		{"%2B00:00", "false", "", "utf8mb4_unicode_ci"},
		{"%2B03:00", "true", "", "utf8mb4_general_ci"},
		{"%2B03:00", "false", "STRICT_TRANS_TABLES", "utf8mb4_unicode_ci"},
		{"SYSTEM", "true", "", "utf8mb4_unicode_ci"}, // the server's zone, America/New_York
		{"SYSTEM", "false", "STRICT_TRANS_TABLES", "utf8mb4_general_ci"},
	} {
		t.Run(strings.Join([]string{setting.zone, setting.parseTime, setting.sqlMode, setting.collation}, " "), func(t *testing.T) {
			t.Parallel()
			testdb.SkipEmbedded(t, "ignores the time zone and the clock of a connection")
			if raceEnabled && i > 0 {
				t.Skip("is bcrypt for the most part; without -race it runs")
			}
			db := openRaw(t, testdb.DSN(t), strings.Join([]string{r.at(), "time_zone='" + setting.zone + "'", "parseTime=" + setting.parseTime, "sql_mode='" + setting.sqlMode + "'"}, "&"))
			candyTables(t, db, "utf8mb4_general_ci", setting.collation)
			r.replay(t, db)
		})
	}
}

// A row that Login writes passes every check of CandyPack.
func TestRowsThatCandyPackAccepts(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.DSN(t), "")
	candyTables(t, db)
	f := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare})
	long := "Long/1.0 " + strings.Repeat("x", 300)
	for name, test := range map[string]struct {
		agent, remote string
		browser, ip   string
	}{
		"usual":          {firefox, "192.0.2.7:1234", firefox, "192.0.2.7"},
		"IPv4 in IPv6":   {firefox, "[::ffff:192.0.2.7]:1234", firefox, "192.0.2.7"},
		"IPv6":           {firefox, "[2001:db8::1]:1234", firefox, "2001:db8::1"},
		"Latin-1":        {"caf\xc3\xa9-agent/1.0", "192.0.2.7:1", "cafÃ©-agent/1.0", "192.0.2.7"},
		"white space":    {" \t" + firefox + "  ", "192.0.2.7:1", firefox, "192.0.2.7"},
		"255 characters": {long[:255], "192.0.2.7:1", long[:255], "192.0.2.7"},
	} {
		b := newBrowser(test.agent)
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("User-Agent", test.agent)
		r.RemoteAddr = test.remote
		_, err := logIn(f.auth, w, r, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
		noError(t, err)
		cookies := map[string]string{}
		for _, c := range w.Result().Cookies() {
			cookies[c.Name] = c.Value
			if !c.HttpOnly || !c.Secure || (c.SameSite == http.SameSiteStrictMode) == (c.Name == candyHint) || c.Path != "/" || c.MaxAge != 365*24*3600 {
				t.Errorf("%s: %v", name, c)
			}
		}
		b.cookies = cookies
		x, y := cookies["candy_x"], cookies["candy_y"]
		// CandyPack accepts any length and alphabet without "=" and JSON, of
		// which bcrypt reads every byte.
		if len(cookies) != 3 || !regexp.MustCompile(`^[0-9A-Za-z_-]{22,72}$`).MatchString(x) || !regexp.MustCompile(`^[0-9A-Za-z_-]{32,72}$`).MatchString(y) {
			t.Fatalf("%s: cookies %v", name, cookies)
		}
		var rows []struct {
			User                              int64
			TokenX                            string `db:"token_x"`
			TokenY                            string `db:"token_y"`
			Browser, IP                       string
			Created, Active, Clock, Positions int64
		}
		// It compares token_x and browser under their collation.
		noError(t, db.Select(&rows, "SELECT user, token_x, token_y, browser, ip, UNIX_TIMESTAMP(date) AS created, UNIX_TIMESTAMP(active) AS active, UNIX_TIMESTAMP() AS clock, CHAR_LENGTH(browser) AS positions"+
			" FROM candy_auth WHERE token_x = ? AND browser = ?", x, test.browser))
		if len(rows) != 1 {
			t.Fatalf("%s: %d rows", name, len(rows))
		}
		row := rows[0]
		if row.User != 1 || row.TokenX != x || row.Browser != test.browser || row.IP != test.ip || row.Positions > 255 ||
			row.Created != row.Active || row.Clock-row.Created > 60 || row.Clock < row.Created {
			t.Errorf("%s: %+v", name, row)
		}
		if !strings.HasPrefix(row.TokenY, "$2a$") || len(row.TokenY) != 60 || bcrypt.CompareHashAndPassword([]byte(row.TokenY), []byte(y)) != nil {
			t.Errorf("%s: token_y is %s", name, row.TokenY)
		}
		f.wantLoggedIn(b)
	}

	// A longer User-Agent can only log in here: CandyPack finds no row for it.
	b := newBrowser(long)
	f.login(b, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
	f.wantLoggedIn(b)
	for _, seen := range []string{long, long[:255]} {
		if n := get[int](t, db, "SELECT COUNT(*) FROM candy_auth WHERE token_x = ? AND browser = ?", b.cookies["candy_x"], seen); n != 0 {
			t.Errorf("%d rows for %q", n, seen)
		}
	}
	b.userAgent = long[:254]
	f.wantRejected(b, ErrFingerprintMismatch)
	b.userAgent = long[:255]
	f.wantRejected(b, ErrFingerprintMismatch)
	b.userAgent = strings.Repeat("y", 300)
	f.wantRejected(b, ErrFingerprintMismatch)
}

// CandyPack writes times in its own time zone. The difference neither ends a
// session early nor keeps it forever.
func TestTimeZoneSkew(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, testdb.DSN(t), "")
	candyTables(t, db)
	const hour = 3600
	for name, test := range map[string]struct {
		created, active int64 // seconds before now
		want            error
		skew            string // in the warning; no warning if empty
		renewed, stays  bool   // during a purge
	}{
		"as it should be":                 {created: 10, active: 10, stays: true},
		"just refreshed, 5 h behind":      {created: 10, active: 5*hour + 5, skew: "-5h0m0s", stays: true},
		"5:45 behind":                     {created: 60, active: 5*hour + 45*60, skew: "-5h45m0s", stays: true},
		"3 h ahead":                       {created: 2 * hour, active: -3 * hour, skew: "3h0m0s", stays: true},
		"3 h ahead, a while ago":          {created: 2 * hour, active: -3*hour + 600, skew: "3h0m0s", stays: true},
		"a clock that is 5 minutes ahead": {created: 10, active: -300, stays: true},
		"idle, by both":                   {created: 2 * hour, active: 2 * hour, want: ErrExpired},
		"idle, 5 h behind":                {created: 10 * hour, active: 15 * hour, skew: "-5h0m0s", want: ErrExpired},
		"in a year, created just now":     {created: 10, active: -365 * 24 * hour, stays: true},
		"in a year, created a while ago":  {created: hour / 2, active: -365 * 24 * hour, renewed: true, stays: true},
		"in a year, created long ago":     {created: 2 * hour, active: -365 * 24 * hour, want: ErrExpired},
	} {
		f := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare, MaxAge: time.Hour, UpdateAge: 20 * time.Minute})
		b := newBrowser(firefox)
		f.login(b, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
		f.waitForPurge()
		mustExec(t, db, "DELETE FROM candy_auth WHERE token_x <> ?", b.cookies["candy_x"])
		shift := func() {
			mustExec(t, db, "UPDATE candy_auth SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() - ?), active = FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)", test.created, test.active)
		}
		shift()
		n, err := f.auth.Purge(t.Context())
		if noError(t, err); (n == 0) != test.stays {
			t.Errorf("%s: %d rows were purged", name, n)
		}
		if n != 0 {
			f.login(b, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
			f.waitForPurge()
			shift()
		}
		if why := f.errOf(b); why != test.want {
			t.Errorf("%s: %v, want %v", name, why, test.want)
		}
		if rows := get[int](t, db, "SELECT COUNT(*) FROM candy_auth"); (rows == 0) != (test.want == ErrExpired) {
			t.Errorf("%s: %d rows after the check", name, rows)
		}
		if renewed := get[int](t, db, "SELECT COUNT(*) FROM candy_auth WHERE ABS(UNIX_TIMESTAMP(active) - UNIX_TIMESTAMP()) < 5") == 1; test.want == nil && renewed != test.renewed {
			t.Errorf("%s: renewed: %v", name, renewed)
		}
		f.errOf(b)
		log := f.log.String()
		if warnings := strings.Count(log, "another time zone"); warnings != map[bool]int{false: 1, true: 0}[test.skew == ""] || test.skew != "" && !strings.Contains(log, `"off by at least"=`+test.skew+" ") {
			t.Errorf("%s: the log says %s", name, log)
		}
	}
}

// A session past MaxLifetime is deleted at its next request. Otherwise
// CandyPack would renew it.
func TestLifetimeOfSharedSessions(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, testdb.DSN(t), "")
	candyTables(t, db)
	f := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare, MaxLifetime: 48 * time.Hour})
	b := newBrowser(firefox)
	f.login(b, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
	f.waitForPurge()
	count := func() int {
		return get[int](t, db, "SELECT COUNT(*) FROM candy_auth WHERE token_x = ?", b.cookies["candy_x"])
	}
	mustExec(t, db, "UPDATE candy_auth SET date = date - INTERVAL 47 HOUR WHERE token_x = ?", b.cookies["candy_x"])
	if f.wantLoggedIn(b); count() != 1 {
		t.Error("it ended too soon")
	}
	mustExec(t, db, "UPDATE candy_auth SET date = date - INTERVAL 2 HOUR WHERE token_x = ?", b.cookies["candy_x"])
	if f.wantRejected(b, ErrExpired); count() != 0 {
		t.Error("it is still there")
	}
}

// A browser with CandyPack's cookies also gets this package's cookie. Both
// work.
func TestCandyPackSwitchCookies(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores the time zone for TIMESTAMP")
	db := open(t, testdb.DSN(t), "")
	candyTables(t, db)
	r := readRecording(t)
	s := r.Sessions[0]
	mustExec(t, db, "UPDATE candy_auth SET date = DEFAULT, active = DEFAULT")
	shared := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare})
	switching := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackSwitch})
	after := newManager[candyUser](t, db, "", Config{TokenTable: "candy_auth"})

	b := newBrowser(s.UserAgent)
	b.cookies["candy_x"], b.cookies["candy_y"] = s.CandyX, s.CandyY
	shared.wantLoggedIn(b)
	after.wantRejected(b, ErrNoCookie)
	if len(b.cookies) != 2 {
		t.Errorf("before the switch: %v", b.cookies)
	}
	switching.wantLoggedIn(b) // a request for an image, for example
	after.wantRejected(b, ErrNoCookie)
	open := func() string {
		return body(t, b.do(switching.auth.Middleware(handler("the page")), "GET", "/", "Accept", "text/html"))
	}
	if got := open(); !strings.Contains(got, `http-equiv="refresh"`) {
		t.Errorf("a page after it: %q", got)
	}
	if len(b.cookies) != 4 || b.cookies["__Host-session"] != s.CandyX+"."+s.CandyY {
		t.Errorf("after it: %v", b.cookies)
	}
	if got := open(); got != "the page" {
		t.Errorf("the page once more: %q", got)
	}
	mustExec(t, db, "UPDATE candy_auth SET date = date - INTERVAL 25 HOUR, active = active - INTERVAL 25 HOUR")
	for _, f := range []*fixture[candyUser]{shared, switching, after} {
		f.wantLoggedIn(b)
	}
	// A browser that has all cookies gets no new ones.
	if response := b.do(switching.auth.Middleware(http.NotFoundHandler()), "GET", "/"); len(response.Header["Set-Cookie"]) != 0 {
		t.Errorf("once more: %v", response.Header)
	}

	// Another user logs in with the other app, which leaves our cookie alone.
	// The browser then has that user's session until a logout there. After the
	// logout nobody is logged in, and the first user does not come back.
	other := r.Sessions[4]
	first := b.cookies["__Host-session"]
	b.userAgent, b.cookies["candy_x"], b.cookies["candy_y"] = other.UserAgent, other.CandyX, other.CandyY
	b.cookies["__Host-session"] = first
	b.cookies["candy_x"], b.cookies["candy_y"] = "", "" // the logout comes before a request to us
	b.userAgent = s.UserAgent
	switching.wantRejected(b, ErrNoCookie)
	b.userAgent, b.cookies["candy_x"], b.cookies["candy_y"] = other.UserAgent, other.CandyX, other.CandyY
	switching.wantLoggedIn(b)
	open()
	if b.cookies["__Host-session"] != other.CandyX+"."+other.CandyY {
		t.Errorf("after another login: %v", b.cookies)
	}
	// Logout removes all three cookies.
	switching.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, switching.auth.Logout(w, r)) })
	if len(b.cookies) != 0 {
		t.Errorf("after the logout: %v", b.cookies)
	}

	// A session with a User-Agent that is not shared also survives the end of
	// sharing.
	long := newBrowser("Mozilla/5.0 (" + strings.Repeat("very ", 60) + "long) Browser/131.0")
	switching.login(long, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
	switching.wantLoggedIn(long)
	after.wantLoggedIn(long)
}

func TestMigrateCandyPacksTable(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "explains in another way")
	db := open(t, testdb.DSN(t), "")
	candyTables(t, db)
	f := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare})
	columns := func() (c []string) {
		noError(t, db.Select(&c, "SELECT CONCAT_WS(' ', COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, COLUMN_DEFAULT, IS_NULLABLE) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'candy_auth' ORDER BY ORDINAL_POSITION"))
		return c
	}
	rows := func() (r []string) {
		noError(t, db.Select(&r, "SELECT CONCAT_WS('|', id, user, token_x, token_y, browser, ip, date, active) FROM candy_auth ORDER BY id"))
		return r
	}
	wantColumns, wantRows := columns(), rows()
	ran, err := f.auth.Migrate(t.Context())
	if err != nil || len(ran) != 8 || !strings.Contains(ran[5], "UNIQUE INDEX token_x") {
		t.Errorf("%q, %v", ran, err)
	}
	if ran, err = f.auth.Migrate(t.Context()); err != nil || len(ran) != 0 {
		t.Errorf("the second time: %q, %v", ran, err)
	}
	if fmt.Sprint(columns()[:len(wantColumns)]) != fmt.Sprint(wantColumns) || fmt.Sprint(rows()) != fmt.Sprint(wantRows) || len(wantRows) != 8 {
		t.Errorf("%v\n%v", columns(), rows())
	}
	for i := range 12 { // 4096 × 8 rows, so that the optimizer uses an index
		mustExec(t, db, "INSERT INTO candy_auth (user, token_x, token_y, browser, ip) SELECT user, CONCAT('"+fmt.Sprint(i)+"-', id), token_y, browser, ip FROM candy_auth")
	}
	mustExec(t, db, "ANALYZE TABLE candy_auth")
	if plan := explain(t, db, f.auth.store.SelectIdle(), seconds(DefaultMaxAge), seconds(DefaultMaxAge), 500); plan[0] != "candy_auth:range:active" {
		t.Errorf("the purge goes by %s", plan)
	}
	mustExec(t, db, "DELETE FROM candy_auth WHERE id > 8")
	check := f.lookup(store.BySelector, 1)
	if plan := explain(t, db, check, readRecording(t).Sessions[0].CandyX); plan[0] != "t:const:token_x" {
		t.Errorf("the check goes by %s", plan)
	}

	// If a selector occurs twice, the other indexes are created, and the error
	// explains why this one was not.
	mustExec(t, db, "ALTER TABLE candy_auth DROP INDEX token_x, DROP INDEX active, DROP INDEX user")
	mustExec(t, db, "INSERT INTO candy_auth (user, token_x, token_y, browser, ip) SELECT user, token_x, token_y, browser, ip FROM candy_auth WHERE id = 1")
	ran, err = f.auth.Migrate(t.Context())
	if len(ran) != 2 || err == nil || !strings.Contains(err.Error(), "token_x twice") || !strings.Contains(err.Error(), "HAVING COUNT(*) > 1") {
		t.Errorf("%q, %v", ran, err)
	}
	b := newBrowser(firefox)
	f.login(b, Credentials{"email": "alice@example.com", "password": "alice-pass-1"})
	f.wantLoggedIn(b)
}

// Adding indexes to a million rows, under the traffic of both apps, fails no
// check.
func TestMigrateUnderTraffic(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "is too slow for a million rows")
	if testing.Short() {
		t.Skip("takes some seconds to fill the table")
	}
	db := open(t, testdb.DSN(t), "")
	candyTables(t, db)
	mustExec(t, db, "UPDATE candy_auth SET date = DEFAULT, active = DEFAULT")
	digits := "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
	mustExec(t, db, "INSERT INTO candy_auth (user, token_x, token_y, browser, ip) SELECT 1, REPLACE(UUID(), '-', ''), '', '', '' FROM "+
		strings.Join([]string{digits + " a", digits + " b", digits + " c", digits + " d", digits + " e", digits + " f"}, ", "))
	f := newManager[candyUser](t, db, "", Config{CandyPack: CandyPackShare})
	s := readRecording(t).Sessions[0]
	b := newBrowser(s.UserAgent)
	b.cookies["candy_x"], b.cookies["candy_y"] = s.CandyX, s.CandyY
	f.wantLoggedIn(b)

	var done atomic.Bool
	var ours, theirs atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			own := newBrowser(s.UserAgent)
			for !done.Load() {
				own.cookies["candy_x"], own.cookies["candy_y"] = s.CandyX, s.CandyY
				if why := f.errOf(own); why != nil {
					t.Errorf("a check: %v", why)
					return
				}
				ours.Add(1)
			}
		})
	}
	wg.Go(func() { // as CandyPack does it
		for !done.Load() {
			var ids []int64
			err := db.Select(&ids, "SELECT id FROM candy_auth WHERE token_x = ? AND browser = ?", s.CandyX, s.UserAgent)
			if err == nil && len(ids) == 1 {
				_, err = db.Exec("UPDATE candy_auth SET active = ? WHERE id = ?", time.Now().UTC().Format(time.DateTime), ids[0])
			}
			if err == nil {
				_, err = db.Exec("INSERT INTO candy_auth (user, token_x, token_y, browser, ip) VALUES (1, REPLACE(UUID(), '-', ''), '', '', '')")
			}
			if err != nil || len(ids) != 1 {
				t.Errorf("a check of the other app: %d rows, %v", len(ids), err)
				return
			}
			theirs.Add(1)
		}
	})
	waitUntil(t, func() bool { return ours.Load() > 0 && theirs.Load() > 0 || t.Failed() })
	before := ours.Load()
	ran, err := f.auth.Migrate(t.Context())
	meanwhile := ours.Load() - before
	done.Store(true)
	wg.Wait()
	if len(ran) != 8 || err != nil || meanwhile == 0 {
		t.Errorf("%q, %v; %d checks meanwhile", ran, err, meanwhile)
	}
	t.Logf("%d checks here and %d there while %d rows got three indexes", meanwhile, theirs.Load(), get[int](t, db, "SELECT COUNT(*) FROM candy_auth"))
}
