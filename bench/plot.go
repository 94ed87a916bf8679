package main

import (
	"fmt"
	"math"
	"strings"
)

// A series is a curve of the plot.
type series struct {
	name string
	x    []int
	y    []float64
}

// plot returns an SVG of throughput against concurrency, on a logarithmic axis.
func plot(all []series) string {
	const width, height, left, bottom, top, right = 760, 420, 70, 50, 20, 20
	if len(all) == 0 {
		return ""
	}
	highest := 0.0
	for _, s := range all {
		for _, y := range s.y {
			highest = math.Max(highest, y)
		}
	}
	step := math.Pow(10, math.Floor(math.Log10(highest)))
	if highest/step < 4 {
		step /= 2
	}
	highest = math.Ceil(highest/step) * step
	xAt := func(i int) float64 { return left + float64(i)*(width-left-right)/float64(len(all[0].x)-1) }
	yAt := func(y float64) float64 { return height - bottom - y/highest*(height-bottom-top) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	for y := 0.0; y <= highest; y += step {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%.0f</text>`+"\n", left, width-right, yAt(y), yAt(y), left-8, yAt(y)+4, y)
	}
	for i, x := range all[0].x {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%d</text>`+"\n", xAt(i), height-bottom+20, x)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#555">concurrent requests</text>`+"\n", (width+left)/2, height-10)
	for n, s := range all {
		color := []string{"#6d3bd1", "#1f7a8c", "#d1603b", "#8a8a8a"}[n%4]
		var points []string
		for i, y := range s.y {
			points = append(points, fmt.Sprintf("%.1f,%.1f", xAt(i), yAt(y)))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>`+"\n", strings.Join(points, " "), color)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" font-weight="600">%s</text>`+"\n", left+16, top+20+n*20, color, s.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
