package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session"
)

// timePerRequest returns a measurement of the time per request, in nanoseconds,
// with one request at a time.
func timePerRequest(a app) func() (float64, error) {
	return func() (float64, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		v := newVisitor(ctx, a, 0)
		n, start := 0, time.Now()
		for end := start.Add(duration(150 * time.Millisecond)); time.Now().Before(end); n++ {
			v.visit()
		}
		return float64(time.Since(start).Nanoseconds()) / float64(n), nil
	}
}

// throughput returns a measurement of the requests per second with the given
// number of concurrent clients.
func throughput(a app, concurrent int, d time.Duration) func() (float64, error) {
	return func() (float64, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var total atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		end := start.Add(duration(d))
		for i := range concurrent {
			wg.Go(func() {
				v := newVisitor(ctx, a, i*31)
				n := 0
				for ; time.Now().Before(end); n++ {
					v.visit()
				}
				total.Add(int64(n))
			})
		}
		wg.Wait()
		return float64(total.Load()) / time.Since(start).Seconds(), nil
	}
}

// warm sends one request per user, so that measurements do not include the
// first check of a session.
func warm(apps ...app) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, a := range apps {
		v := newVisitor(ctx, a, 0)
		for range a.cookies {
			v.visit()
		}
	}
}

// oneAtATime measures rows 1, 2 and 10.
func (b *bench) oneAtATime(report *report) error {
	warm(b.subject, b.baseline, b.scsDefault)
	s, err := interleave(rounds(101), timePerRequest(b.subject), timePerRequest(b.baseline), timePerRequest(b.scsDefault))
	if err != nil {
		return err
	}
	toBaseline, toSCS := ratios(s[0], s[1]), ratios(s[0], s[2])
	report.add(1, fmt.Sprintf("an authenticated request, one at a time (%.0f µs), against the same prepared join alone (%.0f µs)", s[0].median()/1e3, s[1].median()/1e3), "≤ 1.15 ×", toBaseline.String()+" ×", toBaseline.median() <= 1.15)
	report.add(2, fmt.Sprintf("the same against scs + mysqlstore, its default DSN (%.0f µs)", s[2].median()/1e3), "≤ 0.5 ×", toSCS.String()+" ×", toSCS.median() <= 0.5)
	if !selected(10) {
		return nil
	}
	if s, err = interleave(rounds(21), timePerRequest(b.subject), timePerRequest(b.bcryptEach)); err != nil {
		return err
	}
	toBcrypt := ratios(s[1], s[0])
	report.add(10, fmt.Sprintf("against a bcrypt of cost 10 on every request (%.0f ms)", s[1].median()/1e6), "≥ 500 ×", toBcrypt.String()+" ×", toBcrypt.median() >= 500)
	return nil
}

// concurrent measures rows 3 to 7 and the plot.
func (b *bench) concurrent(report *report) error {
	warm(b.subject, b.baseline, b.scsDefault, b.scsInterpolated)
	const d = 300 * time.Millisecond
	at := func(n int) ([]samples, error) {
		return interleave(rounds(21), throughput(b.subject, n, d), throughput(b.baseline, n, d), throughput(b.scsDefault, n, d), throughput(b.scsInterpolated, n, d))
	}
	at64, err := at(64)
	if err != nil {
		return err
	}
	toBaseline := ratios(at64[0], at64[1])
	report.add(3, fmt.Sprintf("throughput at 64 concurrent (%.0f/s), against one prepared query per request (%.0f/s)", at64[0].median(), at64[1].median()), "≥ 3.5 ×", toBaseline.String()+" ×", toBaseline.median() >= 3.5)
	at256, err := at(256)
	if err != nil {
		return err
	}
	toBaseline = ratios(at256[0], at256[1])
	report.add(4, fmt.Sprintf("the same at 256 (%.0f/s against %.0f/s)", at256[0].median(), at256[1].median()), "≥ 6 ×", toBaseline.String()+" ×", toBaseline.median() >= 6)
	toDefault, toInterpolated := ratios(at64[0], at64[2]), ratios(at64[0], at64[3])
	report.add(5, fmt.Sprintf("throughput at 64 against scs + mysqlstore, default DSN (%.0f/s) / interpolated (%.0f/s)", at64[2].median(), at64[3].median()), "≥ 6 × / ≥ 4 ×",
		toDefault.String()+" × / "+toInterpolated.String()+" ×", toDefault.median() >= 6 && toInterpolated.median() >= 4)

	statements := func(n int) (samples, error) {
		s, err := interleave(rounds(5), func() (float64, error) { return b.perCheck(b.subject, n, b.statements) })
		if err != nil {
			return nil, err
		}
		return s[0], nil
	}
	s64, err := statements(64)
	if err != nil {
		return err
	}
	s256, err := statements(256)
	if err != nil {
		return err
	}
	report.add(6, "statements per check at 64 / 256, counted by the server", "≤ 0.08 / ≤ 0.02", s64.String()+" / "+s256.String(), s64.median() <= 0.08 && s256.median() <= 0.02)

	cpu, err := interleave(rounds(5), func() (float64, error) { return b.perCheck(b.subject, 64, b.serverTime) }, func() (float64, error) { return b.perCheck(b.baseline, 64, b.serverTime) })
	if err != nil {
		return err
	}
	ratio := ratios(cpu[0], cpu[1])
	report.add(7, fmt.Sprintf("processor time of the server per check at 64 (%.1f µs), against one query per request (%.1f µs)", cpu[0].median()*1e6, cpu[1].median()*1e6), "≤ 0.3 ×", ratio.String()+" ×", ratio.median() <= 0.3)

	if *quick {
		return nil
	}
	plotted := []app{b.subject, b.baseline, b.scsInterpolated, b.scsDefault}
	for _, a := range plotted {
		report.plot = append(report.plot, series{name: a.name})
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256} {
		var contestants []func() (float64, error)
		for _, a := range plotted {
			contestants = append(contestants, throughput(a, n, 300*time.Millisecond))
		}
		s, err := interleave(rounds(5), contestants...)
		if err != nil {
			return err
		}
		for i := range plotted {
			report.plot[i].x = append(report.plot[i].x, n)
			report.plot[i].y = append(report.plot[i].y, s[i].median())
		}
	}
	return nil
}

// perCheck returns the cost of one authenticated request at the given
// concurrency, as the difference of two readings.
func (b *bench) perCheck(a app, concurrent int, reading func() (float64, error)) (float64, error) {
	before, err := reading()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	perSecond, err := throughput(a, concurrent, 1500*time.Millisecond)()
	if err != nil {
		return 0, err
	}
	checks := perSecond * time.Since(start).Seconds()
	after, err := reading()
	return (after - before) / checks, err
}

// statements returns the number of prepared statements that the server has run.
func (b *bench) statements() (n float64, err error) {
	var name string
	err = b.admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'").Scan(&name, &n)
	return n, err
}

// serverTime returns the processor time used by the server, in seconds.
func (b *bench) serverTime() (float64, error) {
	stat, err := os.ReadFile("/proc/" + b.pid + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	const ticks = 100 // per second, on Linux
	return (user + system) / ticks, err
}

// newManagerApp returns an app that uses a Manager and existing sessions.
func newManagerApp(name string, auth *session.Manager[User], cookies []string) app {
	return app{name: name, handler: auth.Middleware(greet(auth)), cookies: cookies}
}

// cached measures row 8.
func (b *bench) cached(report *report) error {
	auth, err := b.manager(session.Config{Cache: session.Cache{Fresh: time.Hour}})
	if err != nil {
		return err
	}
	defer auth.Close()
	a := newManagerApp("cached", auth, b.subject.cookies)
	warm(a, b.scsMemory)
	s, err := interleave(rounds(9), timePerRequest(a), timePerRequest(b.scsMemory))
	if err != nil {
		return err
	}
	v := newVisitor(context.Background(), a, 0)
	allocations := testing.AllocsPerRun(1000, v.visit)
	ratio := ratios(s[0], s[1])
	report.add(8, fmt.Sprintf("a cached check (opt-in): ns, allocations; against scs + memstore (%.0f ns)", s[1].median()), "≤ 2000, ≤ 8; ≤ 0.25 ×",
		fmt.Sprintf("%s ns, %.0f; %s ×", s[0], allocations, ratio), s[0].median() <= 2000 && allocations <= 8 && ratio.median() <= 0.25)
	return nil
}

// firstCheck measures row 9.
func (b *bench) firstCheck(report *report) error {
	s, err := interleave(rounds(5), func() (float64, error) {
		auth, err := b.manager(session.Config{})
		if err != nil {
			return 0, err
		}
		defer auth.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		a := newManagerApp("", auth, b.subject.cookies)
		medianTime := func() float64 {
			v := newVisitor(ctx, a, 0)
			var times samples
			for range 200 {
				start := time.Now()
				v.visit()
				times = append(times, float64(time.Since(start).Nanoseconds()))
			}
			return times.median()
		}
		first := medianTime()
		return (first - medianTime()) / 1e6, nil
	})
	if err != nil {
		return err
	}
	report.add(9, "the first check of a session less a later one, ms (100 concurrent first checks share one bcrypt: TestFirstChecksShareOneBcrypt)", "≤ 1.2 ms", s[0].String()+" ms", s[0].median() <= 1.2)
	return nil
}
