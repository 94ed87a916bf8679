package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// A browser is an installed browser that runs.
type browser interface {
	// visit opens an empty page in a profile of its own, without cookies.
	visit(context.Context) (tab, error)
	// version is what the browser calls itself.
	version() string
	close()
}

// A tab is a page that a person looks at.
type tab interface {
	// open goes to a URL, as if a person had typed it.
	open(ctx context.Context, url string) error
	// click presses the mouse on the element with the id "go", as a person does.
	click(context.Context) error
	// value is what an expression of JavaScript gives, a string.
	value(ctx context.Context, expression string) (string, error)
	close()
}

// kinds are the browsers in the order of the table.
var kinds = []struct {
	name  string
	needs []string // programs
	start func(context.Context) (browser, error)
}{
	{"Chromium", []string{"chromium"}, startChromium},
	{"Firefox", []string{"firefox-esr"}, startFirefox},
	{"WebKit", []string{"WebKitWebDriver", "Xvfb"}, startWebKit},
}

// missing names the first program of some that is not installed.
func missing(programs []string) string {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return program
		}
	}
	return ""
}

// A program is a child process, with a directory for what it writes. It dies with this one.
type program struct {
	cmd *exec.Cmd
	dir string
}

func launch(dir string, env []string, name string, args ...string) (*program, error) {
	p := &program{exec.Command(name, args...), dir}
	log, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return p, p.cmd.Start()
}

// said waits until the program has written what matches.
func (p *program) said(ctx context.Context, pattern string) (string, error) {
	re := regexp.MustCompile(pattern)
	for {
		text, _ := os.ReadFile(filepath.Join(p.dir, filepath.Base(p.cmd.Path)+".log"))
		if found := re.FindSubmatch(text); found != nil {
			return string(found[len(found)-1]), nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return "", fmt.Errorf("%s did not start: %w\n%s", p.cmd.Path, err, text)
		}
	}
}

// end kills the program and what it has started.
func (p *program) end() {
	if p == nil || p.cmd.Process == nil {
		return
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// A wire carries commands over a WebSocket, one after the other: those of the Chrome DevTools Protocol and those of
// WebDriver BiDi look the same.
type wire struct {
	conn *websocket.Conn
	last int
}

func dial(ctx context.Context, url string) (*wire, error) {
	conn, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(-1)
	return &wire{conn: conn}, nil
}

type object map[string]any

// call sends a command and decodes its result. Events are passed over. A context that ends during a call does not break
// it off, as that would close the connection.
func (w *wire) call(ctx context.Context, session, method string, params object, result any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	w.last++
	command := object{"id": w.last, "method": method, "params": params}
	if session != "" {
		command["sessionId"] = session
	}
	if err := wsjson.Write(ctx, w.conn, command); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	for {
		var answer struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
			Text   string          `json:"message"`
		}
		if err := wsjson.Read(ctx, w.conn, &answer); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		switch {
		case answer.ID != w.last:
		case answer.Error != nil:
			return fmt.Errorf("%s: %s %s", method, answer.Error, answer.Text)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Result, result)
		}
	}
}

// Chromium, over the Chrome DevTools Protocol.
type chromium struct {
	program *program
	wire    *wire
	name    string
}

func startChromium(ctx context.Context) (b browser, err error) {
	dir, err := os.MkdirTemp("", "session-chromium-")
	if err != nil {
		return nil, err
	}
	c := &chromium{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	c.program, err = launch(dir, nil, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--ignore-certificate-errors", "--remote-debugging-port=0", "--user-data-dir="+dir, "about:blank")
	if err != nil {
		return nil, err
	}
	url, err := c.program.said(ctx, `DevTools listening on (ws://\S+)`)
	if err != nil {
		return nil, err
	}
	if c.wire, err = dial(ctx, url); err != nil {
		return nil, err
	}
	var version struct{ Product string }
	err = c.wire.call(ctx, "", "Browser.getVersion", nil, &version)
	c.name = version.Product
	return c, err
}

func (c *chromium) version() string { return c.name }

func (c *chromium) close() {
	if c.wire != nil {
		c.wire.conn.CloseNow()
	}
	c.program.end()
	if c.program != nil {
		os.RemoveAll(c.program.dir)
	}
}

type chromiumTab struct {
	*chromium
	profile, session string
}

func (c *chromium) visit(ctx context.Context) (tab, error) {
	var profile struct{ BrowserContextID string }
	var target struct{ TargetID string }
	var session struct{ SessionID string }
	err := c.wire.call(ctx, "", "Target.createBrowserContext", nil, &profile)
	if err == nil {
		err = c.wire.call(ctx, "", "Target.createTarget", object{"url": "about:blank", "browserContextId": profile.BrowserContextID}, &target)
	}
	if err == nil {
		err = c.wire.call(ctx, "", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &session)
	}
	return &chromiumTab{c, profile.BrowserContextID, session.SessionID}, err
}

func (t *chromiumTab) open(ctx context.Context, url string) error {
	var result struct{ ErrorText string }
	err := t.wire.call(ctx, t.session, "Page.navigate", object{"url": url}, &result)
	if err == nil && result.ErrorText != "" {
		err = errors.New(result.ErrorText)
	}
	return err
}

func (t *chromiumTab) click(ctx context.Context) error {
	at, err := middle(ctx, t)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		if err == nil {
			err = t.wire.call(ctx, t.session, "Input.dispatchMouseEvent", object{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
		}
	}
	return err
}

func (t *chromiumTab) value(ctx context.Context, expression string) (string, error) {
	var result struct {
		Result           struct{ Value string }
		ExceptionDetails json.RawMessage
	}
	err := t.wire.call(ctx, t.session, "Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true}, &result)
	if err == nil && result.ExceptionDetails != nil {
		err = fmt.Errorf("%s: %s", expression, result.ExceptionDetails)
	}
	return result.Result.Value, err
}

func (t *chromiumTab) close() {
	t.wire.call(context.Background(), "", "Target.disposeBrowserContext", object{"browserContextId": t.profile}, nil)
}

// middle is where on the page the element with the id "go" is.
func middle(ctx context.Context, t tab) (at [2]int, err error) {
	text, err := t.value(ctx, `(() => { const r = document.getElementById("go").getBoundingClientRect();
		return JSON.stringify([Math.round(r.x + r.width / 2), Math.round(r.y + r.height / 2)]) })()`)
	if err == nil {
		err = json.Unmarshal([]byte(text), &at)
	}
	return at, err
}

// Firefox, over WebDriver BiDi.
type firefox struct {
	program *program
	wire    *wire
	name    string
}

func startFirefox(ctx context.Context) (b browser, err error) {
	dir, err := os.MkdirTemp("", "session-firefox-")
	if err != nil {
		return nil, err
	}
	f := &firefox{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	port := testdb.FreePort("127.0.0.1")
	f.program, err = launch(dir, []string{"HOME=" + dir, "MOZ_REMOTE_SETTINGS_DEVTOOLS=1"}, "firefox-esr", "--headless", "--no-remote", "--profile", dir, "--remote-debugging-port", port)
	if err != nil {
		return nil, err
	}
	url, err := f.program.said(ctx, `WebDriver BiDi listening on (ws://\S+)`)
	if err != nil {
		return nil, err
	}
	if f.wire, err = dial(ctx, url+"/session"); err != nil {
		return nil, err
	}
	var session struct {
		Capabilities struct{ BrowserName, BrowserVersion string }
	}
	err = f.wire.call(ctx, "", "session.new", object{"capabilities": object{"alwaysMatch": object{"acceptInsecureCerts": true}}}, &session)
	f.name = session.Capabilities.BrowserName + "/" + session.Capabilities.BrowserVersion
	return f, err
}

func (f *firefox) version() string { return f.name }

func (f *firefox) close() {
	if f.wire != nil {
		f.wire.conn.CloseNow()
	}
	f.program.end()
	if f.program != nil {
		os.RemoveAll(f.program.dir)
	}
}

type firefoxTab struct {
	*firefox
	profile, page string
}

func (f *firefox) visit(ctx context.Context) (tab, error) {
	var profile struct{ UserContext string }
	var page struct{ Context string }
	err := f.wire.call(ctx, "", "browser.createUserContext", object{}, &profile)
	if err == nil {
		err = f.wire.call(ctx, "", "browsingContext.create", object{"type": "tab", "userContext": profile.UserContext}, &page)
	}
	return &firefoxTab{f, profile.UserContext, page.Context}, err
}

func (t *firefoxTab) open(ctx context.Context, url string) error {
	return t.wire.call(ctx, "", "browsingContext.navigate", object{"context": t.page, "url": url, "wait": "none"}, nil)
}

func (t *firefoxTab) click(ctx context.Context) error {
	at, err := middle(ctx, t)
	if err != nil {
		return err
	}
	return t.wire.call(ctx, "", "input.performActions", object{"context": t.page, "actions": []object{{"type": "pointer", "id": "mouse", "actions": []object{
		{"type": "pointerMove", "x": at[0], "y": at[1]}, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}}}}}, nil)
}

func (t *firefoxTab) value(ctx context.Context, expression string) (string, error) {
	var result struct {
		Type             string
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := t.wire.call(ctx, "", "script.evaluate", object{"expression": expression, "target": object{"context": t.page}, "awaitPromise": true}, &result)
	if err == nil && result.Type != "success" {
		err = fmt.Errorf("%s: %s", expression, result.ExceptionDetails.Text)
	}
	return result.Result.Value, err
}

func (t *firefoxTab) close() {
	t.wire.call(context.Background(), "", "browser.removeUserContext", object{"userContext": t.profile}, nil)
}

// WebKit, over WebDriver. Its MiniBrowser needs a screen.
type webkit struct {
	screen, driver *program
	base           string
	name           string
}

func startWebKit(ctx context.Context) (b browser, err error) {
	dir, err := os.MkdirTemp("", "session-webkit-")
	if err != nil {
		return nil, err
	}
	w := &webkit{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.screen, err = launch(dir, nil, "Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"); err != nil {
		return nil, err
	}
	display, err := w.screen.said(ctx, `(?m)^(\d+)\n`)
	if err != nil {
		return nil, err
	}
	port := testdb.FreePort("127.0.0.1")
	w.base = "http://127.0.0.1:" + port
	w.driver, err = launch(dir, []string{"DISPLAY=:" + display, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS=1", "LIBGL_ALWAYS_SOFTWARE=1", "HOME=" + dir, "NO_AT_BRIDGE=1"},
		"WebKitWebDriver", "-p", port)
	if err != nil {
		return nil, err
	}
	for {
		if err = w.command(ctx, "GET", "/status", nil, nil); err == nil {
			return w, nil
		}
		if stopped := sleep(ctx, 50*time.Millisecond); stopped != nil {
			return nil, err
		}
	}
}

func (w *webkit) version() string { return w.name }

func (w *webkit) close() {
	w.driver.end()
	w.screen.end()
	if w.screen != nil {
		os.RemoveAll(w.screen.dir)
	}
}

func (w *webkit) command(ctx context.Context, method, path string, body object, result any) error {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = strings.NewReader(string(b))
	}
	r, err := http.NewRequestWithContext(ctx, method, w.base+path, text)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Value)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, result)
}

type webkitTab struct {
	*webkit
	path string
}

func (w *webkit) visit(ctx context.Context) (tab, error) {
	found, _ := filepath.Glob("/usr/lib/*/webkit2gtk-4.*/MiniBrowser")
	if len(found) == 0 {
		return nil, errors.New("MiniBrowser is not installed (Debian: webkit2gtk-driver)")
	}
	var session struct {
		SessionID    string
		Capabilities struct{ BrowserName, BrowserVersion string }
	}
	err := w.command(ctx, "POST", "/session", object{"capabilities": object{"alwaysMatch": object{"acceptInsecureCerts": true, "pageLoadStrategy": "none",
		"webkitgtk:browserOptions": object{"binary": found[len(found)-1], "args": []string{"--automation"}}}}}, &session)
	w.name = session.Capabilities.BrowserName + "/" + session.Capabilities.BrowserVersion
	return &webkitTab{w, "/session/" + session.SessionID}, err
}

func (t *webkitTab) open(ctx context.Context, url string) error {
	return t.command(ctx, "POST", t.path+"/url", object{"url": url}, nil)
}

func (t *webkitTab) click(ctx context.Context) error {
	var element map[string]string
	if err := t.command(ctx, "POST", t.path+"/element", object{"using": "css selector", "value": "#go"}, &element); err != nil {
		return err
	}
	for _, id := range element {
		return t.command(ctx, "POST", t.path+"/element/"+id+"/click", object{}, nil)
	}
	return errors.New("no element")
}

func (t *webkitTab) value(ctx context.Context, expression string) (value string, err error) {
	err = t.command(ctx, "POST", t.path+"/execute/sync", object{"script": "return " + expression, "args": []string{}}, &value)
	return value, err
}

func (t *webkitTab) close() {
	t.command(context.Background(), "DELETE", t.path, nil, nil)
}
