// Command faults injects faults into the database, the network and the clocks
// while apps are under load, and checks each response against earlier ones. It
// needs MariaDB, with Galera and HAProxy for the cluster, faketime for the
// clocks, and root for the full disk and the network partition.
//
//	go -C internal/faults run .          # all faults; writes docs/faults.md
//	go -C internal/faults run . -quick   # a two-minute subset; writes nothing
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

// A result is a row of the table in docs/faults.md.
type result struct {
	name, description string
	operations        int64
	lostLogins        int64 // acknowledged logins whose session was unknown
	revivedLogouts    int64 // sessions accepted after their end was acknowledged
	falseLogouts      int64 // sessions rejected although nothing ended them
	otherViolations   int64
	unavailable       int64 // responses of 503
	longest           time.Duration
	recovery          time.Duration // from the end of the fault to the last 503
	notes             []string
}

// clean reports whether there was no violation.
func (r result) clean() bool {
	return r.lostLogins+r.revivedLogouts+r.falseLogouts+r.otherViolations == 0
}

func (r result) String() string {
	description := r.description
	if len(r.notes) > 0 {
		description += "; " + strings.Join(r.notes, "; ")
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %.1f s | %.1f s | %s |", r.name, r.operations, r.lostLogins, r.revivedLogouts, r.falseLogouts, r.unavailable, r.longest.Seconds(), r.recovery.Seconds(), description)
}

const heading = `| fault | operations | acknowledged logins lost | acknowledged logouts revived | false logouts | 503 | longest response | recovery | description |
|---|---|---|---|---|---|---|---|---|`

// newLoad returns a load on the given apps. It reports the first violations to
// standard error.
func newLoad(name string, apps ...*app) *load {
	var reported atomic.Int64
	return &load{apps: apps, report: func(format string, a ...any) {
		if reported.Add(1) <= 5 {
			fmt.Fprintf(os.Stderr, "%s: "+format+"\n", append([]any{name}, a...)...)
		}
	}}
}

// awaitRecovery continues the load until three seconds have passed without a
// 503, and stops it. It returns the time from end to the last 503.
func (l *load) awaitRecovery(end time.Time) (time.Duration, error) {
	last := func() time.Time { return time.Unix(0, max(l.lastUnavailable.Load(), end.UnixNano())) }
	for time.Since(last()) < 3*time.Second {
		if time.Since(end) > time.Minute {
			l.finish()
			return 0, fmt.Errorf("still 503 one minute after the fault")
		}
		time.Sleep(20 * time.Millisecond)
	}
	recovery := last().Sub(end)
	l.finish()
	return recovery, nil
}

// result returns the counts of the load.
func (l *load) result(name, description string, recovery time.Duration) result {
	return result{name: name, description: description, operations: l.operations.Load(), lostLogins: l.lostLogins.Load(), revivedLogouts: l.revivedLogouts.Load(), falseLogouts: l.falseLogouts.Load(),
		otherViolations: l.otherViolations.Load(), unavailable: l.unavailable.Load(), longest: time.Duration(l.longest.Load()), recovery: recovery}
}

func main() {
	quick := flag.Bool("quick", false, "run a short subset; writes nothing")
	only := flag.String("only", "", "run the faults whose names match this expression; writes nothing")
	seconds := flag.Float64("seconds", 8, "duration of each fault")
	verbose := flag.Bool("v", false, "print the app's log")
	namespace := flag.Bool("in-namespace", false, "internal: run the cluster in the current network namespace")
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
	selected, err := regexp.Compile(only)
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
	printLine := func(line string) {
		fmt.Println(line)
		page.WriteString(line + "\n")
	}
	show := func(r result) {
		printLine(r.String())
		if !r.clean() {
			dirty++
		}
	}
	if inside {
		if err := runCluster(base, string(hash), selected, quick, duration, log, show); err != nil {
			return err
		}
		return assertClean(dirty)
	}
	printLine(heading)
	for _, f := range faults {
		if !selected.MatchString(f.name) || quick && !f.quick {
			continue
		}
		r, err := f.run(base, string(hash), duration, log)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		show(r)
	}
	if selectsCluster(selected) {
		lines, err := inNamespace("-in-namespace", "-only="+only, fmt.Sprintf("-quick=%t", quick), fmt.Sprintf("-v=%t", verbose), fmt.Sprintf("-seconds=%v", duration.Seconds()))
		page.WriteString(lines)
		if err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	if err := assertClean(dirty); err != nil || quick || only != "" {
		return err
	}
	return os.WriteFile("../../docs/faults.md", []byte(strings.NewReplacer("{table}", page.String(), "{tools}", tools()).Replace(text)), 0o644)
}

// selectsCluster reports whether the expression selects a fault of the cluster.
func selectsCluster(selected *regexp.Regexp) bool {
	return slices.ContainsFunc(clusterFaults, func(f clusterFault) bool { return selected.MatchString(f.name) })
}

// assertClean returns an error if there were faults with violations.
func assertClean(dirty int) error {
	if dirty > 0 {
		return fmt.Errorf("violations in %d faults", dirty)
	}
	return nil
}

// text is docs/faults.md.
const text = `# Fault injection

Written by ` + "`go -C internal/faults run .`" + `, which needs root, MariaDB with Galera,
HAProxy, faketime, iproute2 and iptables (Debian: mariadb-server haproxy
faketime iproute2 iptables).
{tools}

24 users with several browsers each log in, open pages, log out, revoke other
sessions and all their sessions, let sessions become due for renewal, and purge,
as fast as the app responds. Two tabs of one browser send requests concurrently:
one opens a slow page, which renews the session, while the other replaces the
token (Rotate, LogoutOthers) or logs in again; or both do the same. The response
that arrives last decides which cookie the browser keeps. Each response is
checked against earlier ones:

- **acknowledged logins lost**: a login succeeded, and its session was unknown
  to the first request after it;
- **acknowledged logouts revived**: a request was accepted although it was sent
  after the end of its session was acknowledged (on a cluster: more than a
  second after that, because other nodes may lag by that much);
- **false logouts**: a session was rejected although nothing ended it after it
  had been accepted, or two tabs left their browser with a cookie that belongs
  to no session.

A request that failed with 503 may or may not have taken effect, so either
outcome is accepted. But a failed login must not set a cookie, and after the
fault ` + "`LogoutAll`" + ` must leave no row. At the end each remaining session is
checked once more. Config.Timeout is 2 s, on the cluster the default of 10 s. A
request may run several statements, each with that limit. Recovery is the time
from the end of the fault to the last 503.

{table}
How each fault appears in the log, and what to do: [operations.md](operations.md).
`

// tools returns the versions of the tools that the program used.
func tools() string {
	first := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).Output()
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	return fmt.Sprintf("Here: %s, %d processors, which servers and load share; %s; %s.", runtime.Version(), runtime.NumCPU(), first("mariadbd", "--version"), first("haproxy", "-v"))
}
