package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// oneByOne is the time of a request, in nanoseconds, when there is one at a time.
func oneByOne(a app) func() (float64, error) {
	return func() (float64, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		v := newVisitor(ctx, a, 0)
		n, start := 0, time.Now()
		for end := start.Add(length(150 * time.Millisecond)); time.Now().Before(end); n++ {
			v.visit()
		}
		return float64(time.Since(start).Nanoseconds()) / float64(n), nil
	}
}

// throughput is the requests per second of so many people at once.
func throughput(a app, concurrent int, d time.Duration) func() (float64, error) {
	return func() (float64, error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var total atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		end := start.Add(length(d))
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

// warm has every person visit once, so that nobody's first check is in the figures.
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

func (b *bench) oneAtATime(report *report) error {
	warm(b.ours, b.bare, b.scsDefault)
	s, err := inTurn(rounds(101), oneByOne(b.ours), oneByOne(b.bare), oneByOne(b.scsDefault))
	if err != nil {
		return err
	}
	toBare, toSCS := ratios(s[0], s[1]), ratios(s[0], s[2])
	report.add(1, fmt.Sprintf("a checked request, one at a time (%.0f µs), against the bare prepared join (%.0f µs)", s[0].median()/1e3, s[1].median()/1e3), "≤ 1.15 ×", toBare.String()+" ×", toBare.median() <= 1.15)
	report.add(2, fmt.Sprintf("the same against scs + mysqlstore, its default DSN (%.0f µs)", s[2].median()/1e3), "≤ 0.5 ×", toSCS.String()+" ×", toSCS.median() <= 0.5)
	if !wanted(10) {
		return nil
	}
	if s, err = inTurn(rounds(21), oneByOne(b.ours), oneByOne(b.bcryptEach)); err != nil {
		return err
	}
	toBcrypt := ratios(s[1], s[0])
	report.add(10, fmt.Sprintf("against a bcrypt of cost 10 on every request (%.0f ms)", s[1].median()/1e6), "≥ 500 ×", toBcrypt.String()+" ×", toBcrypt.median() >= 500)
	return nil
}

func (b *bench) concurrent(report *report) error {
	warm(b.ours, b.bare, b.scsDefault, b.scsInterpolated)
	const d = 300 * time.Millisecond
	at := func(n int) ([]spread, error) {
		return inTurn(rounds(21), throughput(b.ours, n, d), throughput(b.bare, n, d), throughput(b.scsDefault, n, d), throughput(b.scsInterpolated, n, d))
	}
	at64, err := at(64)
	if err != nil {
		return err
	}
	toBare := ratios(at64[0], at64[1])
	report.add(3, fmt.Sprintf("throughput at 64 concurrent (%.0f/s), against one bare prepared query per request (%.0f/s)", at64[0].median(), at64[1].median()), "≥ 3.5 ×", toBare.String()+" ×", toBare.median() >= 3.5)
	at256, err := at(256)
	if err != nil {
		return err
	}
	toBare = ratios(at256[0], at256[1])
	report.add(4, fmt.Sprintf("the same at 256 (%.0f/s against %.0f/s)", at256[0].median(), at256[1].median()), "≥ 6 ×", toBare.String()+" ×", toBare.median() >= 6)
	toDefault, toInterpolated := ratios(at64[0], at64[2]), ratios(at64[0], at64[3])
	report.add(5, fmt.Sprintf("throughput at 64 against scs + mysqlstore, default DSN (%.0f/s) / interpolated (%.0f/s)", at64[2].median(), at64[3].median()), "≥ 6 × / ≥ 4 ×",
		toDefault.String()+" × / "+toInterpolated.String()+" ×", toDefault.median() >= 6 && toInterpolated.median() >= 4)

	statements := func(n int) (spread, error) {
		s, err := inTurn(rounds(5), func() (float64, error) { return b.perCheck(b.ours, n, b.statements) })
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
	report.add(6, "statements per check at 64 / 256, by the server's count", "≤ 0.08 / ≤ 0.02", s64.String()+" / "+s256.String(), s64.median() <= 0.08 && s256.median() <= 0.02)

	cpu, err := inTurn(rounds(5), func() (float64, error) { return b.perCheck(b.ours, 64, b.serverTime) }, func() (float64, error) { return b.perCheck(b.bare, 64, b.serverTime) })
	if err != nil {
		return err
	}
	ratio := ratios(cpu[0], cpu[1])
	report.add(7, fmt.Sprintf("processor time of the server per check at 64 (%.1f µs), against one query per request (%.1f µs)", cpu[0].median()*1e6, cpu[1].median()*1e6), "≤ 0.3 ×", ratio.String()+" ×", ratio.median() <= 0.3)

	if *quick {
		return nil
	}
	plotted := []app{b.ours, b.bare, b.scsInterpolated, b.scsDefault}
	for _, a := range plotted {
		report.plot = append(report.plot, series{name: a.name})
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256} {
		var contestants []func() (float64, error)
		for _, a := range plotted {
			contestants = append(contestants, throughput(a, n, 300*time.Millisecond))
		}
		s, err := inTurn(rounds(5), contestants...)
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

// perCheck is how much of something a checked request costs at this concurrency.
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

// statements is how many prepared statements the server has run.
func (b *bench) statements() (n float64, err error) {
	var name string
	err = b.admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'").Scan(&name, &n)
	return n, err
}

// serverTime is the processor time of the server, in seconds.
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
