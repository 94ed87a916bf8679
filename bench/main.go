// Command bench measures the cost of an authenticated request and compares it
// with other session libraries on the same server, in the same process. It
// writes RESULTS.md and throughput.svg to its directory.
//
//	go -C bench run .                   # everything, about 15 minutes
//	go -C bench run . -quick            # a smoke test of the benchmarks
//	go -C bench run . -rows 10000000    # with a token table of 10 million rows
//
// Each comparison interleaves its contestants, round by round, and reports the
// median, minimum and maximum of the rounds' ratios. Machines are noisy, but
// the contestants of one round see the same noise.
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	quick = flag.Bool("quick", false, "run a smoke test, which checks no bar and writes no file")
	rows  = flag.Int("rows", 1_000_000, "number of rows of the token table in the comparison by size")
	only  = flag.String("only", "", "measure only the rows with these numbers, such as 1,3,7, and keep the other rows of RESULTS.md")
	// The program starts itself as the client of the whole-server comparison.
	client  = flag.String("client", "", "internal: run as the HTTP client of this address")
	cookies = flag.String("cookies", "", "internal: file with the client's cookies")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if *client != "" {
		if err := runClient(*client, *cookies); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

// A row is one row of the table of results.
type row struct {
	number   int
	measured string
	bar      string // the required result
	result   string
	met      bool
}

// A report collects the results of one run.
type report struct {
	rows []row
	plot []series

	throughput string // the throughput section of an earlier run
}

// add records a result and prints it.
func (r *report) add(number int, measured, bar, result string, met bool) {
	r.rows = append(r.rows, row{number, measured, bar, result, met})
	fmt.Printf("%2d  %-90s %-22s %s  %s\n", number, measured, bar, result, map[bool]string{true: "", false: "MISSED"}[met || *quick])
}

// selected reports whether the row with this number is to be measured.
func selected(number int) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), strconv.Itoa(number))
}

func run() error {
	// This program's heap is so small that it would be collected a hundred
	// times a second, unlike an app's.
	debug.SetGCPercent(400)
	b, err := newBench("512M")
	if err != nil {
		return err
	}
	defer b.close()
	results := &report{}
	for _, part := range []struct {
		numbers []int
		measure func(*report) error
	}{
		{[]int{1, 2, 10}, b.oneAtATime},
		{[]int{3, 4, 5, 6, 7}, b.concurrent},
		{[]int{8}, b.cached},
		{[]int{9}, b.firstCheck},
		{[]int{11}, b.login},
		{[]int{12}, b.purge},
		{[]int{13}, b.size},
		{[]int{14}, b.memory},
		{[]int{15}, b.wholeServer},
		{[]int{16}, b.refusals},
		{[]int{17}, b.flood},
	} {
		if slices.ContainsFunc(part.numbers, selected) {
			if err := part.measure(results); err != nil {
				return err
			}
		}
	}
	if *quick {
		return nil
	}
	results.mergeEarlier("RESULTS.md")
	slices.SortStableFunc(results.rows, func(a, b row) int { return a.number - b.number })
	text := results.markdown(b.version)
	fmt.Println("\n" + text)
	if len(results.plot) > 0 {
		if err := os.WriteFile("throughput.svg", []byte(plot(results.plot)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile("RESULTS.md", []byte(text), 0o644)
}

// mergeEarlier adds the rows of an earlier run that this run did not measure.
func (r *report) mergeEarlier(path string) {
	earlier, err := os.ReadFile(path)
	if err != nil {
		return
	}
	table, plotted, _ := strings.Cut(string(earlier), throughputHeading)
	for text := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(text), "|"), " | ")
		number, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if len(cells) != 5 || err != nil || slices.ContainsFunc(r.rows, func(l row) bool { return l.number == number }) {
			continue
		}
		r.rows = append(r.rows, row{number, cells[1], cells[2], cells[3], strings.TrimSpace(cells[4]) == "met"})
	}
	if plotted != "" && len(r.plot) == 0 {
		r.throughput = throughputHeading + plotted
	}
}

const throughputHeading = "\n![Checked requests"

// markdown returns the text of RESULTS.md.
func (r *report) markdown(server string) string {
	var s strings.Builder
	s.WriteString("# Results\n\nWritten by `go -C bench run . -rows 10000000`; single rows by `-only`. Ratios are medians of interleaved rounds (minimum to maximum). GOGC=400 for all, as the heap of this program is far smaller than an app's.\n\n")
	fmt.Fprintf(&s, "%s, %d processors, %s, %s, go-sql-driver/mysql %s, scs %s; %s\n\n", cpu(), runtime.NumCPU(), runtime.Version(), server, module("github.com/go-sql-driver/mysql"), module("github.com/alexedwards/scs/v2"), time.Now().UTC().Format("2006-01-02"))
	s.WriteString("| # | measured | bar | result | |\n|---|---|---|---|---|\n")
	for _, l := range r.rows {
		fmt.Fprintf(&s, "| %d | %s | %s | %s | %s |\n", l.number, l.measured, l.bar, l.result, map[bool]string{true: "met", false: "**missed**"}[l.met])
	}
	s.WriteString("\nThe contestants share a server, its connections (a pool of 32) and this process; scs keeps the user in the session and needs no join.\n")
	s.WriteString(r.throughput)
	if len(r.plot) > 0 {
		s.WriteString(throughputHeading + " per second against concurrency](throughput.svg)\n\n| concurrent |")
		for _, p := range r.plot {
			s.WriteString(" " + p.name + " |")
		}
		s.WriteString("\n|---|" + strings.Repeat("---|", len(r.plot)) + "\n")
		for i, x := range r.plot[0].x {
			fmt.Fprintf(&s, "| %d |", x)
			for _, p := range r.plot {
				fmt.Fprintf(&s, " %.0f/s |", p.y[i])
			}
			s.WriteString("\n")
		}
	}
	return s.String()
}

// cpu returns the processor's model name.
func cpu() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(l, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

// module returns the version of a required module.
func module(path string) string {
	out, _ := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path).Output()
	return strings.TrimSpace(string(out))
}

// samples are the results of several rounds.
type samples []float64

func (s samples) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

func (s samples) String() string {
	return fmt.Sprintf("%s (%s to %s)", formatSig(s.median()), formatSig(slices.Min(s)), formatSig(slices.Max(s)))
}

// formatSig formats x with three significant digits.
func formatSig(x float64) string {
	if x == 0 {
		return "0"
	}
	return strconv.FormatFloat(x, 'f', max(0, 2-int(math.Floor(math.Log10(math.Abs(x))))), 64)
}

// ratios returns a[i] / b[i] for each round i.
func ratios(a, b samples) samples {
	r := make(samples, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}

// rounds returns the number of rounds to run: n, or 1 in a smoke test.
func rounds(n int) int {
	if *quick {
		return 1
	}
	return n
}

// duration returns how long to run one contestant in one round.
func duration(d time.Duration) time.Duration {
	if *quick {
		return 50 * time.Millisecond
	}
	return d
}

// interleave runs every contestant once per round. Every second round runs
// them in reverse order.
func interleave(n int, contestants ...func() (float64, error)) ([]samples, error) {
	results := make([]samples, len(contestants))
	for round := range n {
		for i := range contestants {
			if round%2 == 1 {
				i = len(contestants) - 1 - i
			}
			x, err := contestants[i]()
			if err != nil {
				return nil, err
			}
			results[i] = append(results[i], x)
		}
	}
	return results, nil
}
