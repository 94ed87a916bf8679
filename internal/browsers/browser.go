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

// A browser is a running browser.
type browser interface {
	// visit opens an empty page in a new profile, which has no cookies.
	visit(context.Context) (tab, error)
	// version returns the browser's name and version.
	version() string
	close()
}

// A tab is an open page.
type tab interface {
	// open navigates to a URL, as if the user had typed it.
	open(ctx context.Context, url string) error
	// click clicks on the element with the id "go", as a user does.
	click(context.Context) error
	// value evaluates a JavaScript expression, whose result is a string.
	value(ctx context.Context, expression string) (string, error)
	close()
}

// kinds lists the supported browsers in the order of the table.
var kinds = []struct {
	name  string
	needs []string // required programs
	start func(context.Context) (browser, error)
}{
	{"Chromium", []string{"chromium"}, startChromium},
	{"Firefox", []string{"firefox-esr"}, startFirefox},
	{"WebKit", []string{"WebKitWebDriver", "Xvfb"}, startWebKit},
}

// missing returns the first program that is not installed, or "".
func missing(programs []string) string {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return program
		}
	}
	return ""
}

// A program is a child process with a directory for its files.
type program struct {
	cmd *exec.Cmd
	dir string
}

// launch starts a program and writes its output to a log in dir.
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

// awaitOutput waits until the program's output matches a pattern, and returns
// the last group of the match.
func (p *program) awaitOutput(ctx context.Context, pattern string) (string, error) {
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

// kill kills the program and its children.
func (p *program) kill() {
	if p == nil || p.cmd.Process == nil {
		return
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
}

// sleep sleeps for d or until the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// A commandConn sends commands over a WebSocket, one after the other. The
// messages of the Chrome DevTools Protocol and of WebDriver BiDi have the same
// form.
type commandConn struct {
	ws   *websocket.Conn
	last int
}

// dial connects to the WebSocket of a browser.
func dial(ctx context.Context, url string) (*commandConn, error) {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	return &commandConn{ws: ws}, nil
}

// close closes the connection.
func (c *commandConn) close() { c.ws.CloseNow() }

// An object is a JSON object.
type object map[string]any

// call sends a command and decodes its result. It skips events. A context that
// ends during a call does not abort it, because that would close the
// connection.
func (c *commandConn) call(ctx context.Context, session, method string, params object, result any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	c.last++
	command := object{"id": c.last, "method": method, "params": params}
	if session != "" {
		command["sessionId"] = session
	}
	if err := wsjson.Write(ctx, c.ws, command); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	for {
		var message struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
			Text   string          `json:"message"`
		}
		if err := wsjson.Read(ctx, c.ws, &message); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		switch {
		case message.ID != c.last:
		case message.Error != nil:
			return fmt.Errorf("%s: %s %s", method, message.Error, message.Text)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(message.Result, result)
		}
	}
}

// chromium controls Chromium over the Chrome DevTools Protocol.
type chromium struct {
	program *program
	conn    *commandConn
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
	url, err := c.program.awaitOutput(ctx, `DevTools listening on (ws://\S+)`)
	if err != nil {
		return nil, err
	}
	if c.conn, err = dial(ctx, url); err != nil {
		return nil, err
	}
	var version struct{ Product string }
	err = c.conn.call(ctx, "", "Browser.getVersion", nil, &version)
	c.name = version.Product
	return c, err
}

func (c *chromium) version() string { return c.name }

func (c *chromium) close() {
	if c.conn != nil {
		c.conn.close()
	}
	c.program.kill()
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
	err := c.conn.call(ctx, "", "Target.createBrowserContext", nil, &profile)
	if err == nil {
		err = c.conn.call(ctx, "", "Target.createTarget", object{"url": "about:blank", "browserContextId": profile.BrowserContextID}, &target)
	}
	if err == nil {
		err = c.conn.call(ctx, "", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &session)
	}
	return &chromiumTab{c, profile.BrowserContextID, session.SessionID}, err
}

func (t *chromiumTab) open(ctx context.Context, url string) error {
	var result struct{ ErrorText string }
	err := t.conn.call(ctx, t.session, "Page.navigate", object{"url": url}, &result)
	if err == nil && result.ErrorText != "" {
		err = errors.New(result.ErrorText)
	}
	return err
}

func (t *chromiumTab) click(ctx context.Context) error {
	at, err := position(ctx, t)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		if err == nil {
			err = t.conn.call(ctx, t.session, "Input.dispatchMouseEvent", object{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
		}
	}
	return err
}

func (t *chromiumTab) value(ctx context.Context, expression string) (string, error) {
	var result struct {
		Result           struct{ Value string }
		ExceptionDetails json.RawMessage
	}
	err := t.conn.call(ctx, t.session, "Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true}, &result)
	if err == nil && result.ExceptionDetails != nil {
		err = fmt.Errorf("%s: %s", expression, result.ExceptionDetails)
	}
	return result.Result.Value, err
}

func (t *chromiumTab) close() {
	t.conn.call(context.Background(), "", "Target.disposeBrowserContext", object{"browserContextId": t.profile}, nil)
}

// position returns the coordinates of the middle of the element with the id
// "go".
func position(ctx context.Context, t tab) (at [2]int, err error) {
	text, err := t.value(ctx, `(() => { const r = document.getElementById("go").getBoundingClientRect();
		return JSON.stringify([Math.round(r.x + r.width / 2), Math.round(r.y + r.height / 2)]) })()`)
	if err == nil {
		err = json.Unmarshal([]byte(text), &at)
	}
	return at, err
}

// firefox controls Firefox over WebDriver BiDi.
type firefox struct {
	program *program
	conn    *commandConn
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
	url, err := f.program.awaitOutput(ctx, `WebDriver BiDi listening on (ws://\S+)`)
	if err != nil {
		return nil, err
	}
	if f.conn, err = dial(ctx, url+"/session"); err != nil {
		return nil, err
	}
	var session struct {
		Capabilities struct{ BrowserName, BrowserVersion string }
	}
	err = f.conn.call(ctx, "", "session.new", object{"capabilities": object{"alwaysMatch": object{"acceptInsecureCerts": true}}}, &session)
	f.name = session.Capabilities.BrowserName + "/" + session.Capabilities.BrowserVersion
	return f, err
}

func (f *firefox) version() string { return f.name }

func (f *firefox) close() {
	if f.conn != nil {
		f.conn.close()
	}
	f.program.kill()
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
	err := f.conn.call(ctx, "", "browser.createUserContext", object{}, &profile)
	if err == nil {
		err = f.conn.call(ctx, "", "browsingContext.create", object{"type": "tab", "userContext": profile.UserContext}, &page)
	}
	return &firefoxTab{f, profile.UserContext, page.Context}, err
}

func (t *firefoxTab) open(ctx context.Context, url string) error {
	return t.conn.call(ctx, "", "browsingContext.navigate", object{"context": t.page, "url": url, "wait": "none"}, nil)
}

func (t *firefoxTab) click(ctx context.Context) error {
	at, err := position(ctx, t)
	if err != nil {
		return err
	}
	return t.conn.call(ctx, "", "input.performActions", object{"context": t.page, "actions": []object{{"type": "pointer", "id": "mouse", "actions": []object{
		{"type": "pointerMove", "x": at[0], "y": at[1]}, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}}}}}, nil)
}

func (t *firefoxTab) value(ctx context.Context, expression string) (string, error) {
	var result struct {
		Type             string
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := t.conn.call(ctx, "", "script.evaluate", object{"expression": expression, "target": object{"context": t.page}, "awaitPromise": true}, &result)
	if err == nil && result.Type != "success" {
		err = fmt.Errorf("%s: %s", expression, result.ExceptionDetails.Text)
	}
	return result.Result.Value, err
}

func (t *firefoxTab) close() {
	t.conn.call(context.Background(), "", "browser.removeUserContext", object{"userContext": t.profile}, nil)
}

// webkit controls WebKitGTK's MiniBrowser over WebDriver. MiniBrowser needs a
// screen.
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
	display, err := w.screen.awaitOutput(ctx, `(?m)^(\d+)\n`)
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
		if ctxErr := sleep(ctx, 50*time.Millisecond); ctxErr != nil {
			return nil, err
		}
	}
}

func (w *webkit) version() string { return w.name }

func (w *webkit) close() {
	w.driver.kill()
	w.screen.kill()
	if w.screen != nil {
		os.RemoveAll(w.screen.dir)
	}
}

// command sends a WebDriver command and decodes its result.
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
	var reply struct{ Value json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, reply.Value)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(reply.Value, result)
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
