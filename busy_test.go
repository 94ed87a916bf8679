package session

import (
	"context"
	"errors"
	"testing"

	"github.com/candysession/session/internal/token"
)

// Clients that keep the processor busy with wrong verifiers wait for each other.
// Logins and known sessions do not wait for them.
func TestUnknownTokensDoNotBlockKnownOnes(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	release := f.holdComparisons(0)
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.login(newBrowser(""), bob)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	wrong := token.Token{Selector: selectorOf(b), Verifier: token.New().Verifier}
	if _, err := f.auth.verifier.Verify(canceled, wrong, token.Row{ID: 1, Selector: token.New().Selector}); err != nil {
		t.Error("another selector needs no bcrypt: ", err)
	}
	row, err := f.auth.bySelector.Find(t.Context(), selectorOf(b), selectorOf(b))
	noError(t, err)
	if _, err := f.auth.verifier.Verify(canceled, wrong, tokenRow(&row.Record)); !errors.Is(err, context.Canceled) {
		t.Errorf("a wrong verifier did not wait: %v", err)
	}
	release()
	f.wantRejected(forgeToken(b), ErrUnknownSession)
}
