// Command bench measures what a checked request costs, against its peers on the same server in the same process, and
// writes RESULTS.md and throughput.svg beside itself.
//
//	go -C bench run .                   # everything, some 15 minutes
//	go -C bench run . -quick            # a smoke run: does it work at all
//	go -C bench run . -rows 10000000    # with a token table of so many rows
//
// Each comparison runs its contestants in turn, round after round, and gives the median of the rounds' ratios, with the
// least and the greatest: machines are noisy, but both of a round see the same noise.
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
	quick = flag.Bool("quick", false, "a smoke run that judges nothing and writes nothing")
	rows  = flag.Int("rows", 1_000_000, "rows of the token table in the comparison by size")
	only  = flag.String("only", "", "measure only the lines whose numbers are listed, as in 1,3,7, and leave the others of RESULTS.md as they are")
	// The program runs itself as the client of the whole-server comparison.
	client  = flag.String("client", "", "internal: be the HTTP client of this address")
	cookies = flag.String("cookies", "", "internal: the client's file of cookies")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if *client != "" {
		if err := beClient(*client, *cookies); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

// A line is one row of the table of results.
type line struct {
	number   int
	measured string
	bar      string
	got      string
	met      bool
}

type report struct {
	lines []line
	plot  []series

	throughput string // what an earlier run wrote of the plot
}

func (r *report) add(number int, measured, bar, got string, met bool) {
	r.lines = append(r.lines, line{number, measured, bar, got, met})
	fmt.Printf("%2d  %-90s %-22s %s  %s\n", number, measured, bar, got, map[bool]string{true: "", false: "MISSED"}[met || *quick])
}

func wanted(number int) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), strconv.Itoa(number))
}

func run() error {
	// The heap of this program is so small that it would be collected a hundred times a second, unlike that of an app.
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
		if slices.ContainsFunc(part.numbers, wanted) {
			if err := part.measure(results); err != nil {
				return err
			}
		}
	}
	if *quick {
		return nil
	}
	results.keep("RESULTS.md")
	slices.SortStableFunc(results.lines, func(a, b line) int { return a.number - b.number })
	text := results.markdown(b.version)
	fmt.Println("\n" + text)
	if len(results.plot) > 0 {
		if err := os.WriteFile("throughput.svg", []byte(plot(results.plot)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile("RESULTS.md", []byte(text), 0o644)
}

// keep takes over what an earlier run wrote and this one has not measured.
func (r *report) keep(path string) {
	earlier, err := os.ReadFile(path)
	if err != nil {
		return
	}
	table, plotted, _ := strings.Cut(string(earlier), throughputHeading)
	for text := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(text), "|"), " | ")
		number, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if len(cells) != 5 || err != nil || slices.ContainsFunc(r.lines, func(l line) bool { return l.number == number }) {
			continue
		}
		r.lines = append(r.lines, line{number, cells[1], cells[2], cells[3], strings.TrimSpace(cells[4]) == "met"})
	}
	if plotted != "" && len(r.plot) == 0 {
		r.throughput = throughputHeading + plotted
	}
}

const throughputHeading = "\n![Checked requests"

func (r *report) markdown(server string) string {
	var s strings.Builder
	s.WriteString("# Results\n\nWritten by `go -C bench run . -rows 10000000`; single lines by `-only`. Ratios are medians of rounds in which the contestants took turns (least to greatest). GOGC=400 for all, as the heap of this program is far smaller than an app's.\n\n")
	fmt.Fprintf(&s, "%s, %d processors, %s, %s, go-sql-driver/mysql %s, scs %s; %s\n\n", cpu(), runtime.NumCPU(), runtime.Version(), server, module("github.com/go-sql-driver/mysql"), module("github.com/alexedwards/scs/v2"), time.Now().UTC().Format("2006-01-02"))
	s.WriteString("| # | measured | bar | got | |\n|---|---|---|---|---|\n")
	for _, l := range r.lines {
		fmt.Fprintf(&s, "| %d | %s | %s | %s | %s |\n", l.number, l.measured, l.bar, l.got, map[bool]string{true: "met", false: "**missed**"}[l.met])
	}
	s.WriteString("\nThe contestants share a server, its connections (a pool of 32) and this process; scs keeps the user in the session and needs no join. A MySQL store for gorilla/sessions could not be had from the module proxy.\n")
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

func cpu() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(l, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

func module(path string) string {
	out, _ := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path).Output()
	return strings.TrimSpace(string(out))
}

// A spread is what several rounds gave.
type spread []float64

func (s spread) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

func (s spread) String() string {
	return fmt.Sprintf("%s (%s to %s)", digits(s.median()), digits(slices.Min(s)), digits(slices.Max(s)))
}

// digits gives three of them.
func digits(x float64) string {
	if x == 0 {
		return "0"
	}
	return strconv.FormatFloat(x, 'f', max(0, 2-int(math.Floor(math.Log10(math.Abs(x))))), 64)
}

func ratios(a, b spread) spread {
	r := make(spread, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}

func rounds(n int) int {
	if *quick {
		return 1
	}
	return n
}

// length is how long one turn takes.
func length(d time.Duration) time.Duration {
	if *quick {
		return 50 * time.Millisecond
	}
	return d
}

// inTurn runs every contestant once per round, in an order that is turned about each round.
func inTurn(n int, contestants ...func() (float64, error)) ([]spread, error) {
	results := make([]spread, len(contestants))
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
