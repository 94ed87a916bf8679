// Command faults breaks what the library stands on, under load, and compares each answer with what was acknowledged
// before. It needs MariaDB installed, with Galera and HAProxy for the cluster, faketime for the clocks, and root for the
// full disk and the partition.
//
//	go -C internal/faults run .          # all, and write docs/faults.md
//	go -C internal/faults run . -quick   # two minutes of it, which write nothing
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/crypto/bcrypt"
)

// A result is what a fault did to those who used the app.
type result struct {
	name, what string
	operations int64
	lost       int64 // logins that were acknowledged, and then not known
	living     int64 // sessions that were let in after their end was acknowledged
	out        int64 // sessions that were let in, and then no more
	other      int64 // violations of other kinds
	failed     int64 // answers of 503
	longest    time.Duration
	recovery   time.Duration // from the end of the fault to the last 503
	notes      []string
}

func (r result) clean() bool { return r.lost+r.living+r.out+r.other == 0 }

func (r result) String() string {
	what := r.what
	if len(r.notes) > 0 {
		what += "; " + strings.Join(r.notes, "; ")
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %.1f s | %.1f s | %s |", r.name, r.operations, r.lost, r.living, r.out, r.failed, r.longest.Seconds(), r.recovery.Seconds(), what)
}

const heading = `| fault | operations | acknowledged logins lost | acknowledged logouts alive | false logouts | 503 | longest answer | recovery | what happens |
|---|---|---|---|---|---|---|---|---|`

// newLoad is a load on some apps, which tells what it finds.
func newLoad(name string, apps ...*app) *load {
	var told atomic.Int64
	return &load{apps: apps, tell: func(format string, a ...any) {
		if told.Add(1) <= 5 {
			fmt.Fprintf(os.Stderr, "%s: "+format+"\n", append([]any{name}, a...)...)
		}
	}}
}

// recover lets the load go on until three seconds have passed without a 503, stops it, and tells when the last one was.
func (l *load) recover(end time.Time) (time.Duration, error) {
	last := func() time.Time { return time.Unix(0, max(l.lastUnavailable.Load(), end.UnixNano())) }
	for time.Since(last()) < 3*time.Second {
		if time.Since(end) > time.Minute {
			l.finish()
			return 0, fmt.Errorf("still 503 a minute after the end")
		}
		time.Sleep(20 * time.Millisecond)
	}
	recovery := last().Sub(end)
	l.finish()
	return recovery, nil
}

func (l *load) result(name, what string, recovery time.Duration) result {
	return result{name: name, what: what, operations: l.operations.Load(), lost: l.lostLogins.Load(), living: l.livingLogouts.Load(), out: l.falseLogouts.Load(),
		other: l.otherViolations.Load(), failed: l.unavailable.Load(), longest: time.Duration(l.longest.Load()), recovery: recovery}
}

func main() {
	quick := flag.Bool("quick", false, "a subset, shortly, which writes nothing")
	only := flag.String("only", "", "the faults whose names match this expression; writes nothing")
	seconds := flag.Float64("seconds", 8, "how long each fault takes")
	verbose := flag.Bool("v", false, "show the app's log")
	namespace := flag.Bool("in-namespace", false, "run the cluster, in the network namespace that this is in")
	flag.Parse()
	if err := run(*quick, *only, *namespace, time.Duration(*seconds*float64(time.Second)), *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(quick bool, only string, inside bool, duration time.Duration, verbose bool) error {
	out := io.Discard
	if verbose {
		out = os.Stderr
	}
	log := slog.New(slog.NewTextHandler(out, nil))
	mysql.SetLogger(mysql.Logger(slog.NewLogLogger(log.Handler(), slog.LevelInfo)))
	if quick {
		duration = min(duration, 3*time.Second)
	}
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	base, err := template()
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 4)
	if err != nil {
		return err
	}
	var page strings.Builder
	dirty := 0
	tell := func(line string) {
		fmt.Println(line)
		page.WriteString(line + "\n")
	}
	show := func(r result) {
		tell(r.String())
		if !r.clean() {
			dirty++
		}
	}
	if inside {
		if err := runCluster(base, string(hash), wanted, quick, duration, log, show); err != nil {
			return err
		}
		return lossless(dirty)
	}
	tell(heading)
	for _, f := range faults {
		if !wanted.MatchString(f.name) || quick && !f.quick {
			continue
		}
		r, err := f.run(base, string(hash), duration, log)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		show(r)
	}
	if wantsCluster(wanted) {
		lines, err := inNamespace("-in-namespace", "-only="+only, fmt.Sprintf("-quick=%t", quick), fmt.Sprintf("-v=%t", verbose), fmt.Sprintf("-seconds=%v", duration.Seconds()))
		page.WriteString(lines)
		if err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	if err := lossless(dirty); err != nil || quick || only != "" {
		return err
	}
	return os.WriteFile("../../docs/faults.md", []byte(strings.NewReplacer("{table}", page.String(), "{tools}", tools()).Replace(text)), 0o644)
}

func wantsCluster(wanted *regexp.Regexp) bool {
	return slices.ContainsFunc(clusterFaults, func(f clusterFault) bool { return wanted.MatchString(f.name) })
}

func lossless(dirty int) error {
	if dirty > 0 {
		return fmt.Errorf("%d faults lost something", dirty)
	}
	return nil
}

// text is docs/faults.md.
const text = `# What faults do

Written by ` + "`go -C internal/faults run .`" + `, which needs root, MariaDB with Galera, HAProxy, faketime, iproute2 and iptables (Debian:
mariadb-server haproxy faketime iproute2 iptables). {tools}

24 users in several browsers each log in, open pages, log out, end other sessions and all of their sessions, have sessions that
are due for renewal, and purge, as fast as they are answered. Two tabs of one browser ask together: one opens a slow page, which
renews the session, while the other one gets a new token (Rotate, LogoutOthers) or logs in once more; or both do the same. The
answer that arrives last decides which cookie the browser keeps. Each user compares every answer with those before:

- **acknowledged logins lost**: a login was answered with success, and its session is unknown at the first request after it;
- **acknowledged logouts alive**: a session is let in by a request that was sent after its end was acknowledged (on a cluster: more
  than a second after it, as another node may be so late);
- **false logouts**: a session that was let in before is refused, although nobody ended it, or two tabs leave their browser with a
  cookie of no session.

What was answered with 503 may have been done or not, and is held to neither; but a failed login must not set a cookie, and when it
is over, ` + "`LogoutAll`" + ` must leave no row. At the end each session that is left is asked for once more. Config.Timeout is 2 s, on the
cluster the default of 10 s. A request may make several statements, each with that limit. Recovery is the time from the end of the
fault to the last 503.

{table}
What it looks like in the log, and what to do: [operations.md](operations.md).
`

// tools names what it was run with.
func tools() string {
	first := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).Output()
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	return fmt.Sprintf("Here: %s, %d processors, which servers and load share; %s; %s.", runtime.Version(), runtime.NumCPU(), first("mariadbd", "--version"), first("haproxy", "-v"))
}
