package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/candysession/session/internal/password"
)

// passwordOptions returns the settings of the Manager's password hasher.
func (m *Manager[U]) passwordOptions() password.Options {
	return password.Options{
		Cost:    m.cfg.PasswordCost,
		Legacy:  m.cfg.VerifyPassword,
		Sample:  m.store.SamplePasswords,
		Timeout: m.cfg.Timeout,
	}
}

// HashPassword returns the bcrypt hash of a password, at Config.PasswordCost,
// for apps that write it to the users table themselves. It normalizes the
// password (NFC) before. It returns [ErrPasswordTooLong] for passwords over 72
// bytes, which bcrypt would truncate, and [ErrBusy] if the call does not get its
// turn within Config.Timeout.
func (m *Manager[U]) HashPassword(ctx context.Context, plain string) (string, error) {
	hash, err := m.passwords.Hash(ctx, plain)
	switch {
	case errors.Is(err, password.ErrTooLong):
		return "", fmt.Errorf("%w: bcrypt uses only the first 72 bytes", ErrPasswordTooLong)
	case err != nil:
		return "", m.passwordError(ctx, "hash the password", err)
	}
	return hash, nil
}

// matchesPassword reports whether a stored hash matches a password.
func (m *Manager[U]) matchesPassword(ctx context.Context, hash []byte, plain string) (bool, error) {
	ok, err := m.passwords.Verify(ctx, hash, plain)
	if err != nil {
		return false, m.passwordError(ctx, "verify the password", err)
	}
	return ok, nil
}

// passwordError returns ErrBusy, and emits its event, or explains another
// error.
func (m *Manager[U]) passwordError(ctx context.Context, doing string, err error) error {
	if errors.Is(err, password.ErrBusy) {
		m.cfg.event(ctx, Event{Kind: EventBusy, Err: ErrBusy})
		return ErrBusy
	}
	return m.wrap(doing, err)
}
