package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// size measures row 13, on a separate server with enough memory for the table.
func (*bench) size(report *report) error {
	large, bufferPool := *rows, "512M"
	if *quick {
		large = 20_000
	}
	if large > 1_000_000 {
		bufferPool = "6G"
	}
	b, err := newBench(bufferPool)
	if err != nil {
		return err
	}
	defer b.close()
	newTable := func(table string, n int) (app, func() error, error) {
		cfg, err := b.tokens(table, 0)
		if err == nil {
			err = b.fill(table, n, "NOW()")
		}
		if err != nil {
			return app{}, nil, err
		}
		auth, err := b.manager(cfg)
		if err != nil {
			return app{}, nil, err
		}
		a := newManagerApp(table, auth, nil)
		for i := range 10_000 {
			a.cookies = append(a.cookies, "__Host-session="+selector(1+i*7919%n)+"."+verifier)
		}
		return a, auth.Close, nil
	}
	small, closeSmall, err := newTable("small_tokens", 1000)
	if err != nil {
		return err
	}
	defer closeSmall()
	big, closeBig, err := newTable("big_tokens", large)
	if err != nil {
		return err
	}
	defer closeBig()
	if err := b.settle(); err != nil {
		return err
	}
	warm(big, small)
	p50 := func(a app) func() (float64, error) {
		v := newVisitor(context.Background(), a, 0)
		return func() (float64, error) {
			var times samples
			for range 5000 {
				start := time.Now()
				v.visit()
				times = append(times, float64(time.Since(start).Nanoseconds()))
			}
			return times.median(), nil
		}
	}
	s, err := interleave(rounds(9), p50(big), p50(small))
	if err != nil {
		return err
	}
	ratio := ratios(s[0], s[1])
	report.add(13, fmt.Sprintf("p50 of a check with %d rows (%.0f µs), of sessions from the whole table, against 1000 (%.0f µs)", large, s[0].median()/1e3, s[1].median()/1e3), "≤ 1.2 ×", ratio.String()+" ×", ratio.median() <= 1.2)
	return nil
}

// settle waits until the server has written the dirty pages that fill left.
func (b *bench) settle() error {
	b.admin.MustExec("SET GLOBAL innodb_io_capacity_max = 40000")
	b.admin.MustExec("SET GLOBAL innodb_io_capacity = 20000")
	b.admin.MustExec("SET GLOBAL innodb_max_dirty_pages_pct = 0")
	for range 600 {
		var name string
		var dirty int
		if err := b.admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'").Scan(&name, &dirty); err != nil {
			return err
		}
		if dirty < 1000 {
			return nil
		}
		time.Sleep(time.Second)
	}
	return errors.New("the server still has dirty pages after ten minutes")
}

// memory measures row 14 with a benchmark of the library, which has access to
// unexported state.
func (b *bench) memory(report *report) error {
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkMemory$", "-benchtime", "1x", "github.com/candysession/session", "github.com/candysession/session/internal/token").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	figure := func(unit string) float64 {
		m := regexp.MustCompile(`([0-9.]+) B/` + unit + `\s`).FindSubmatch(out)
		if m == nil {
			return -1
		}
		x, _ := strconv.ParseFloat(string(m[1]), 64)
		return x
	}
	few, many, cached := figure("entry-of-100000"), figure("entry-of-1000000"), figure("entry")
	report.add(14, "memory per remembered verification, of 100,000 / 1,000,000; per cached session with a 200-byte user", "≤ 200 B; ≤ 2000 B",
		fmt.Sprintf("%.0f B / %.0f B; %.0f B", few, many, cached), few > 0 && few <= 200 && many > 0 && many <= 200 && cached > 0 && cached <= 2000)
	return nil
}
