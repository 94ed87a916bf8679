package main

import (
	"context"
	"testing"
	"time"
)

// In each browser that is installed, a person who is logged in clicks a link of another site and gets the page.
func TestLinkOfAnotherSite(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			if program := missing(kind.needs); program != "" {
				t.Skip(program + " is not installed")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			b, err := kind.start(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer b.close()
			if o := come(ctx, w, b, visits[0]); !o.good(visits[0]) {
				t.Errorf("%s; asked for %q", o.cell(visits[0]), o.asked)
			}
		})
	}
}
